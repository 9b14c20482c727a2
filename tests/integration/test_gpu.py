"""Every path on a GPU: the figures, scores and cuts of the CPU, and what only a GPU has.

With GUMLAB_TEST_DEVICE=cpu the same bodies run on the CPU, to try them where there is no GPU.
"""

import os

import pytest
import torch
from helpers.models import hooks_of, random_masks, tiny
from helpers.texts import make_examples, word_tokenizer

import gumlab as gl
from gumlab.measurement import compare
from gumlab.scoring import DATA_SCORES

DEVICE = os.environ.get("GUMLAB_TEST_DEVICE", "cuda")
ON_GPU = DEVICE == "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(ON_GPU and not torch.cuda.is_available(), reason="needs a CUDA device"),
]
METHODS = [
    ("random", {}), ("magnitude", {}), ("movement", {"scope": "global"}),
    ("movement", {"gradient": "gate"}), ("soft_movement", {"score_lr": 1.0}), ("gum", {}),
    ("gum", {"gradient": "gate"}), ("gum", {"twin_filter": 0.8}), ("obs", {}),
]  # fmt: skip


def there(model):
    return model.to(DEVICE)


def is_there(tensors):
    return all(t.device.type == DEVICE for t in tensors)


def assert_near(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert a.device.type == DEVICE
        torch.testing.assert_close(a.cpu(), b, rtol=5e-3, atol=1e-4)


def trained(tokenizer, task, method="gum", options=None, steps=10, **training):
    """A model trained there with a pruner: (model, pruner, history)."""
    model = there(tiny("gpt2"))
    pruner = gl.Pruner(model, method, 0.5, steps, **(options or {}))
    settings = {"steps": steps, "batch_size": 4, "lr": 1e-2, "progress": False}
    return model, pruner, gl.train(model, tokenizer, task, pruner=pruner, **(settings | training))


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_redundancy(name, tokenizer, examples):
    model = tiny(name)
    here = gl.redundancy(model, tokenizer, examples)
    found = gl.redundancy(there(model), tokenizer, examples)
    for field in ("sensitivity", "energy", "max_cosine", "reconstructability", "obs"):
        assert_near(getattr(found, field), getattr(here, field))
    assert found.uniqueness == pytest.approx(here.uniqueness)
    assert found.effective_rank == pytest.approx(here.effective_rank, rel=1e-3)


@pytest.mark.parametrize("method", ["random", "magnitude", *DATA_SCORES])
def test_scores(method, tokenizer, task):
    model = tiny("gpt2")
    here = [s.float() for s in gl.score(model, method, tokenizer, task)]
    assert_near([s.float() for s in gl.score(there(model), method, tokenizer, task)], here)


@pytest.mark.parametrize("refit", [False, True, "bias"])
def test_a_cut(refit, tokenizer, task):
    model = tiny("gpt2")
    masks = gl.select(gl.score(model, "magnitude"), keep=0.5)
    here = gl.shrink(model, masks, tokenizer, task, refit=refit)
    found = gl.shrink(there(model), masks, tokenizer, task, refit=refit)
    assert_near([p.detach() for p in found.parameters()], [p.detach() for p in here.parameters()])


def test_the_recommended_cut(tokenizer, task):
    model = there(tiny("gpt2"))
    small = gl.prune(model, "recommended", tokenizer, task, keep=0.5)
    assert sum(layer.width for layer in gl.neurons(small)) == 24
    assert is_there(small.parameters())


@pytest.mark.parametrize("precision", [None, "bf16", "fp32"])
@pytest.mark.parametrize(("method", "options"), METHODS)
def test_a_training_run_prunes_to_its_budget(method, options, precision, tokenizer, task):
    model, pruner, history = trained(tokenizer, task, method, options, precision=precision)
    assert pruner.fraction_kept == 0.5 or method == "soft_movement"
    assert is_there([*pruner.masks, *pruner.scores])
    assert all(s.dtype != torch.bfloat16 and s.isfinite().all() for s in pruner.scores)
    assert len(history.losses) == 10
    pruner.remove()
    assert is_there(gl.shrink(model, pruner.masks).parameters())


@pytest.mark.parametrize("method", ["magnitude", "gum"])
def test_distillation(method, tokenizer, task):
    teacher = there(tiny("gpt2", seed=1))
    _, pruner, with_teacher = trained(tokenizer, task, method, teacher=teacher)
    assert pruner.fraction_kept == 0.5
    assert with_teacher.losses != trained(tokenizer, task, method)[2].losses


def test_float32_there_is_float32_here(tokenizer, task):
    """The first losses agree; later ones drift apart by rounding."""
    here = gl.train(tiny("gpt2"), tokenizer, task, steps=4, batch_size=4, progress=False)
    options = {"steps": 4, "batch_size": 4, "progress": False, "precision": "fp32"}
    found = gl.train(there(tiny("gpt2")), tokenizer, task, **options)
    assert found.losses == pytest.approx(here.losses, rel=5e-3)


@pytest.mark.skipif(not ON_GPU, reason="the CPU's default is float32 and no fused optimizer")
def test_bf16_and_the_fused_optimizer_are_the_default(tokenizer, task, monkeypatch):
    fused, dtypes, model = [], set(), tiny("gpt2").cuda()

    class Recorder(torch.optim.AdamW):
        def __init__(self, *args, **kwargs):
            fused.append(kwargs["fused"])
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(torch.optim, "AdamW", Recorder)
    model.transformer.h[0].mlp.c_proj.register_forward_hook(lambda m, i, out: dtypes.add(out.dtype))
    gl.train(model, tokenizer, task, steps=2, batch_size=4, progress=False)
    assert fused == [True]
    assert dtypes == {torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float32}
    assert all(p.dtype == torch.float32 for p in model.parameters())


@pytest.mark.skipif(not ON_GPU, reason="the device found is the CPU")
def test_load_finds_the_gpu():
    assert next(gl.load("tiny-gpt2")[0].parameters()).is_cuda
    assert not next(gl.load("tiny-gpt2", device="cpu")[0].parameters()).is_cuda


@pytest.mark.parametrize("equal", [True, False])
def test_save_and_load(equal, tokenizer, tmp_path):
    model = there(tiny("gpt2"))
    small = gl.shrink(model, random_masks(model, equal))
    gl.save(small, tokenizer, tmp_path / "m")
    again, _ = gl.load(tmp_path / "m", device=DEVICE)
    ids = torch.randint(4, 60, (2, 7), device=DEVICE)
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, small(ids).logits)
    assert is_there(again.parameters())


def test_evaluate_and_generate(task):
    tokenizer, model = word_tokenizer(), tiny("gpt2")
    here = gl.evaluate(model, tokenizer, task)
    found = gl.evaluate(there(model), tokenizer, task)
    assert found["loss"] == pytest.approx(here["loss"], rel=1e-3)
    assert found["bleu"] == pytest.approx(here["bleu"], abs=5)  # a near tie may fall otherwise


def test_measure_with_peak_memory():
    model = there(tiny("gpt2"))
    models = {"dense": model, "small": gl.shrink(model, random_masks(model))}
    found = compare(models, batches=(1, 4), tokens=16, decoded=4, repeats=3)
    for row in found.values():
        one, four = row["speed"]
        assert row["bytes"] < one["peak_bytes"] < four["peak_bytes"]
        assert min(one["prefill_ms"], one["decode_tokens_per_s"]) > 0
    assert found["small"]["speed"][0]["peak_bytes"] < found["dense"]["speed"][0]["peak_bytes"]
    assert hooks_of(model) == 0


@pytest.mark.parametrize("bf16", [False, True])
def test_the_callback_in_a_trainer(bf16, tokenizer, tmp_path):
    """Stopped in the middle and resumed: the masks of a run that was not, budget met."""
    pytest.importorskip("accelerate", reason="the Trainer needs accelerate")
    import transformers

    from gumlab.tasks.batches import shuffled

    def run(resume, **saving):
        model = there(tiny("gpt2"))
        pruner = gl.Pruner(model, "gum", 0.5, 10, gram_every=2)
        batches = list(shuffled(tiny("gpt2"), tokenizer, make_examples(12), 4, 10, 0))
        settings = {
            "max_steps": 10, "per_device_train_batch_size": 1, "learning_rate": 1e-2,
            "train_sampling_strategy": "sequential", "remove_unused_columns": False,
            "report_to": "none", "disable_tqdm": True, "use_cpu": not ON_GPU, "bf16": bf16,
            "dataloader_pin_memory": False, "save_strategy": "no",
        }  # fmt: skip
        trainer = transformers.Trainer(
            model,
            transformers.TrainingArguments(str(tmp_path), **(settings | saving)),
            data_collator=lambda rows: dict(rows[0]),
            train_dataset=batches,
            callbacks=[gl.PruningCallback(pruner)],
        )
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5") if resume else None)
        return pruner

    whole = run(False, save_strategy="steps", save_steps=5)
    resumed = run(True)
    assert whole.fraction_kept == resumed.fraction_kept == 0.5
    assert is_there([*resumed.masks, *resumed.scores])
    same = sum(int((a == b).sum()) for a, b in zip(whole.masks, resumed.masks, strict=True))
    assert same == 48 if DEVICE == "cpu" else same >= 44  # a GPU's sums differ in the last bit
