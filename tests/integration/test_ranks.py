"""Training in two processes keeps the same neurons in both: those of one process.

With `gl.train`, with a Trainer, and with a hand-written loop under accelerate. Run by torchrun,
this file is the process: it trains each case and writes what it kept.
"""

import contextlib
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from helpers.children import environment
from helpers.models import tiny
from helpers.texts import make_examples, word_tokenizer

import gumlab as gl
from gumlab.feedforward import neurons
from gumlab.removal import weights_cut
from gumlab.tasks.batches import collate, encode, token_losses

STEPS = 14
KINDS = {
    "random": ("random", {}),
    "magnitude": ("magnitude", {}),
    "movement": ("movement", {}),
    "movement-global": ("movement", {"scope": "global"}),
    "movement-gate": ("movement", {"gradient": "gate"}),
    "soft_movement": ("soft_movement", {"score_lr": 1.0}),
    "soft_movement-gate": ("soft_movement", {"score_lr": 1.0, "gradient": "gate"}),
    "gum": ("gum", {"gram_every": 3, "gram_tokens": 1.0, "lambda_gum": 20.0}),
    "gum-gate": ("gum", {"gram_every": 3, "gradient": "gate"}),
    "twin_filter": ("magnitude", {"gram_every": 3, "gram_tokens": 1.0, "twin_filter": 0.7}),
    "obs": ("obs", {"gram_every": 3, "gram_tokens": 1.0}),
}
BY_GRAMS = {"gum", "gum-gate", "twin_filter", "obs"}


def by_train(model, pruner, folder, processes):
    """Thirteen examples: every fourth batch has one row, which both processes take."""
    options = {"batch_size": 4, "lr": 1e-2, "progress": False}
    gl.train(model, word_tokenizer(), make_examples(13), steps=STEPS, pruner=pruner, **options)


def in_order(model):
    """The rows of a run that goes through them once, four at each step."""
    return encode(word_tokenizer(), make_examples(4 * STEPS), 64)


def by_accelerate(model, pruner, folder, processes):
    """The loop of gumlab's README, with accelerate's Accelerator around it."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    data = torch.utils.data.DataLoader(in_order(model), 4 // processes, collate_fn=collate)
    adam = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model, adam, data = accelerator.prepare(model.train(), adam, data)
    for inputs in data:
        labels = inputs.pop("labels")
        total = token_losses(model(**inputs).logits, labels).sum()
        accelerator.backward(accelerator.num_processes * total / 40)  # a mean weighs ranks alike
        pruner.step(adam)
        adam.step()
        adam.zero_grad()


def by_trainer(model, pruner, folder, processes, resume=None, **more):
    """By a Trainer, which with `resume` goes on from a checkpoint; more: other settings of it."""
    import transformers

    settings = {
        "max_steps": STEPS, "per_device_train_batch_size": 4 // processes, "learning_rate": 1e-2,
        "train_sampling_strategy": "sequential", "remove_unused_columns": False, "use_cpu": True,
        "save_strategy": "no", "report_to": "none", "disable_tqdm": True,
        "dataloader_pin_memory": False, "ddp_find_unused_parameters": False, **more,
    }  # fmt: skip
    transformers.Trainer(
        model,
        transformers.TrainingArguments(str(folder), **settings),
        train_dataset=in_order(model),
        data_collator=collate,
        callbacks=[gl.PruningCallback(pruner)],
    ).train(resume_from_checkpoint=resume)


CUT = {"cut": True}
RUNS = [
    *((by_train, kind, CUT) for kind in KINDS),
    *((by_train, kind, {}) for kind in ("movement-gate", "soft_movement", "gum")),
    *((by_trainer, kind, {}) for kind in KINDS if kind not in ("random", "movement-global")),
    *((by_trainer, kind, CUT) for kind in ("movement", "gum-gate")),
    (by_accelerate, "movement-gate", {}),
    (by_accelerate, "gum", CUT),
]
CASES = {
    f"{kind}{' that cuts' * bool(how)}, {way.__name__}": (way, kind, how) for way, kind, how in RUNS
}


def trained(case, folder, processes):
    """What is left after a run: masks, scores, and the norms of all weights and of the neurons'.

    What has no gradient but rounding (the bias of attention's keys) is moved by it, as Adam does.
    """
    way, kind, how = CASES[case]
    method, options = KINDS[kind]
    model = tiny("gpt2")
    pruner = gl.Pruner(model, method, 0.4, STEPS, **options, **how)
    way(model, pruner, folder, processes)
    return {
        "masks": torch.cat(pruner.original_masks).tolist(),
        "scores": torch.cat(pruner.original_scores).tolist(),
        "weights": norms(model.parameters()),
        "neurons": norms(weights_cut(neurons(model))),
    }


def norms(weights):
    return [weight.detach().norm().item() for weight in weights]


def healed():
    """What a model that was pruned at once holds after its teacher has healed it."""
    base, tokenizer, examples = tiny("gpt2"), word_tokenizer(), make_examples(12)
    small = gl.prune(base, "greedy_obs", tokenizer, examples, keep=0.5)
    rows = []
    small.register_forward_pre_hook(
        lambda module, args, given: rows.append(len(given["input_ids"])), with_kwargs=True
    )
    options = {"batch_size": 4, "lr": 1e-2, "progress": False}
    history = gl.train(small, tokenizer, examples, steps=6, teacher=base, **options)
    found = {"neurons": norms(weights_cut(neurons(small))), "losses": history.losses}
    return found | {"rows": sum(rows)}


class Stopped(Exception):
    """Stops a run in the middle."""


def kept_on(file, stop=None):
    """The norms after a run with dropout that keeps its state, and how many steps it did itself."""
    model = tiny("gpt2", resid_pdrop=0.1)
    pruner = gl.Pruner(model, "gum", 0.4, STEPS, gram_every=3, gradient="gate", cut=True)
    calls = []

    def count(*_):
        calls.append(0)
        if len(calls) == stop:
            raise Stopped

    model.register_forward_pre_hook(count)
    options = {"batch_size": 4, "lr": 1e-2, "progress": False, "state_every": 4, "state": file}
    with contextlib.suppress(Stopped):
        gl.train(model, word_tokenizer(), make_examples(12), steps=STEPS, pruner=pruner, **options)
    return norms(model.parameters()), len(calls)


def gone_on(folder):
    """What a run that was never stopped ends with, and one that was, at its tenth step."""
    whole, _ = kept_on(folder / "whole.state")
    kept_on(folder / "stopped.state", stop=10)
    again, steps = kept_on(folder / "stopped.state")
    return {"whole": whole, "gone on": again, "steps done again": steps}


def trainer_gone_on(folder):
    """The same of Trainers: one never stopped, and one that goes on from its seventh step.

    The other begins with other weights: all comes from the checkpoint.
    """
    found = {}
    for name, seed, resume in (("whole", 0, None), ("gone on", 1, str(folder / "checkpoint-7"))):
        model = tiny("gpt2", seed=seed, resid_pdrop=0.1)
        pruner = gl.Pruner(model, "gum", 0.4, STEPS, gram_every=3, gradient="gate", cut=True)
        settings = {"save_strategy": "steps", "save_steps": 7}
        by_trainer(model, pruner, folder, 2, resume, **settings)
        found[name] = [
            norms(model.parameters()),
            torch.cat(pruner.original_masks).tolist(),
            torch.cat(pruner.original_scores).tolist(),
        ]
    return found


def refused(folder):
    """What is said to runs of several processes that cannot be."""
    wrapped = torch.nn.parallel.DistributedDataParallel(tiny("gpt2").train())
    gl.Pruner(wrapped.module, "movement", 0.4, STEPS, cut=True)
    batch = collate(encode(word_tokenizer(), make_examples(4), 64))
    rank = int(os.environ["RANK"])
    runs = {
        "wrapped first": lambda: wrapped(**batch),
        "other models": lambda: gl.train(
            tiny("gpt2", seed=rank), word_tokenizer(), make_examples(4), steps=2, progress=False
        ),
        "other folders": lambda: gl.train(
            tiny("gpt2"),
            word_tokenizer(),
            make_examples(4),
            steps=2,
            progress=False,
            state=folder / ("whole.state" if rank else "nothing"),
        ),
    }
    said = {}
    for name, run in runs.items():
        with pytest.raises(gl.GumlabError) as caught:
            run()
        said[name] = str(caught.value)
    return said


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two processes found, with half of every batch each."""
    pytest.importorskip("accelerate", reason="the Trainer needs accelerate")
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*command, __file__, str(folder)], capture_output=True, text=True, timeout=900,
        env=environment(OMP_NUM_THREADS="1"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.filterwarnings("ignore:Soft movement keeps:UserWarning")
@pytest.mark.parametrize("case", CASES)
def test_two_processes_keep_what_one_keeps(case, ranks, tmp_path):
    """Gram sums weigh ranks alike whatever their tokens, so scores from them only come near."""
    ours, theirs = (rank[case] for rank in ranks)
    assert ours == theirs
    masks = ours["masks"]
    _, kind, _ = CASES[case]
    if not kind.startswith("soft"):
        assert sum(masks) == round(0.4 * len(masks))
    alone = trained(case, tmp_path, 1)
    agree = sum(a == b for a, b in zip(masks, alone["masks"], strict=True))
    assert agree >= 0.9 * len(masks)
    if kind not in BY_GRAMS:
        assert masks == alone["masks"]
        assert ours["scores"] == pytest.approx(alone["scores"], rel=1e-2, abs=1e-4)
        assert ours["neurons"] == pytest.approx(alone["neurons"], rel=1e-3)


def test_two_processes_prune_and_heal_as_one(ranks):
    ours, theirs = (rank["healed"] for rank in ranks)
    assert ours == theirs
    alone = healed()
    assert ours["rows"] == alone["rows"] / 2 == 12
    for key in ("neurons", "losses"):
        assert ours[key] == pytest.approx(alone[key], rel=1e-3)


def test_two_processes_go_on_bit_for_bit(ranks):
    ours, theirs = (rank["gone on"] for rank in ranks)
    assert ours == theirs
    assert ours["gone on"] == ours["whole"]
    assert ours["steps done again"] == STEPS - 8


def test_two_processes_of_a_trainer_go_on_bit_for_bit(ranks):
    ours, theirs = (rank["trainer gone on"] for rank in ranks)
    assert ours == theirs
    assert ours["gone on"] == ours["whole"]


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("wrapped first", "DistributedDataParallel was there before it.* Make the Pruner first"),
        ("other models", "2 processes do not have the same model and settings"),
        ("other folders", "2 processes do not have the same file .*all of them see them"),
    ],
)
def test_processes_that_cannot_train_together_are_told_so(what, sentence, ranks):
    for rank in ranks:
        with pytest.raises(gl.GumlabError, match=sentence):
            raise gl.GumlabError(rank["refused"][what])


def main(folder):
    warnings.simplefilter("ignore")
    torch.distributed.init_process_group("gloo")
    found = {case: trained(case, folder, 2) for case in CASES}
    found |= {"healed": healed(), "gone on": gone_on(folder), "refused": refused(folder)}
    found["trainer gone on"] = trainer_gone_on(folder / "trainer")
    Path(folder, f"{os.environ['RANK']}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
