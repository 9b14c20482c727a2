"""The same figures, scores and cuts on a GPU as on the CPU."""

import pytest
import torch
from conftest import tiny

import gumlab as gl
from gumlab.scoring import DATA_SCORES

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def assert_near(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert a.is_cuda
        torch.testing.assert_close(a.cpu(), b, rtol=5e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_redundancy(name, tokenizer, examples):
    model = tiny(name)
    here = gl.redundancy(model, tokenizer, examples)
    there = gl.redundancy(model.cuda(), tokenizer, examples)
    for field in ("sensitivity", "energy", "max_cosine", "reconstructability", "obs"):
        assert_near(getattr(there, field), getattr(here, field))
    assert there.uniqueness == pytest.approx(here.uniqueness)
    assert there.effective_rank == pytest.approx(here.effective_rank, rel=1e-3)


@pytest.mark.parametrize("method", ["random", "magnitude", *DATA_SCORES])
def test_scores(method, tokenizer, task):
    model = tiny("gpt2")
    here = gl.score(model, method, tokenizer, task)
    assert_near([s.float() for s in gl.score(model.cuda(), method, tokenizer, task)],
                [s.float() for s in here])  # fmt: skip


@pytest.mark.parametrize("refit", [True, "bias"])
def test_a_refitted_cut(refit, tokenizer, task):
    model = tiny("gpt2")
    masks = gl.select(gl.score(model, "magnitude"), keep=0.5)
    here = gl.shrink(model, masks, tokenizer, task, refit=refit)
    there = gl.shrink(model.cuda(), masks, tokenizer, task, refit=refit)
    assert_near([p.detach() for p in there.parameters()], [p.detach() for p in here.parameters()])


@pytest.mark.parametrize(
    ("method", "options"),
    [("random", {}), ("magnitude", {}), ("movement", {"scope": "global"}), ("gum", {}),
     ("gum", {"twin_filter": 0.8}), ("obs", {})],
)  # fmt: skip
def test_a_training_run_prunes_to_its_budget(method, options, tokenizer, task):
    model = tiny("gpt2").cuda()
    pruner = gl.Pruner(model, method, 0.5, 10, **options)
    gl.train(model, tokenizer, task, steps=10, pruner=pruner, batch_size=4, progress=False)
    assert pruner.fraction_kept == 0.5
    assert next(gl.shrink(model, pruner.masks).parameters()).is_cuda
