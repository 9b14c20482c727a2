"""The same pruning in Hugging Face's Trainer: the masks of `train`, and a run that can go on."""

import shutil

import pytest
import torch
from helpers.models import hooks_of, tiny
from helpers.runs import assert_states_close
from helpers.texts import make_examples, word_tokenizer

import gumlab as gl
from gumlab.io.states import load_state, save_state
from gumlab.tasks.batches import shuffled
from gumlab.trainer import STATE_FILE
from gumlab.training import learning_rate

pytest.importorskip("accelerate", reason="the Trainer needs accelerate: pip install gumlab[train]")
from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments

STEPS, LR, SEED = 14, 1e-2, 5
CASES = {
    "movement": ("movement", {"gradient": "neuron"}),
    "movement-gate": ("movement", {"gradient": "gate", "scope": "global"}),
    "gum": ("gum", {"gram_every": 3, "gram_tokens": 0.5}),
    "gum-gate": ("gum", {"gram_every": 3, "gradient": "gate", "lambda_gum": 20.0}),
    "magnitude": ("magnitude", {}),
    "soft_movement": ("soft_movement", {"score_lr": 1.0}),
    "cut": ("movement", {"cut": True}),
}
RESUMED = CASES | {
    "random": ("random", {}),
    "obs": ("obs", {"gram_every": 3}),
    "twin_filter": ("movement", {"gram_every": 3, "twin_filter": 0.7}),
    "gum-cut": ("gum", {"gram_every": 3, "gradient": "gate", "cut": True}),
    "twins-cut": ("magnitude", {"gram_every": 3, "twin_filter": 0.7, "cut": True}),
    "not-frozen": ("gum", {"gram_every": 3, "freeze": False, "end": 0.45}),
}


def made(case, weights=0, keep=0.4, steps=STEPS, **options):
    """A fresh tiny model, its weights drawn with the seed `weights`, and its pruner."""
    model = tiny("gpt2", weights)
    name, extra = RESUMED[case]
    return model, gl.Pruner(model, name, keep, steps, **(extra | options))


def halves(batches):
    """Each batch of four as two of two."""
    return [{k: v[i : i + 2] for k, v in batch.items()} for batch in batches for i in (0, 2)]


def trainer(model, pruner, tokenizer, folder, *more, split=False, resume_from=None, **arguments):
    """A Trainer with the batches, the optimizer and the rates of `gl.train`."""
    batches = list(shuffled(model, tokenizer, make_examples(12), 4, STEPS, SEED))
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.1)
    settings = {
        "max_steps": STEPS,
        "per_device_train_batch_size": 1,  # an item of the data is a whole batch
        "gradient_accumulation_steps": 2 if split else 1,
        "max_grad_norm": 1.0,
        "train_sampling_strategy": "sequential",
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "use_cpu": True,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    return Trainer(
        model,
        TrainingArguments(str(folder), **(settings | arguments)),
        data_collator=lambda rows: dict(rows[0]),
        train_dataset=halves(batches) if split else batches,
        callbacks=[gl.PruningCallback(pruner, resume_from), *more],
        optimizers=(
            optimizer,
            torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: learning_rate(t, STEPS)),
        ),
    )


class Recorder(TrainerCallback):
    """The masks in force, and the norm of the gradients, at each step."""

    def __init__(self, pruner):
        self.pruner, self.masks, self.norms = pruner, [], []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.norms.append(torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item())
        self.masks.append(torch.cat(self.pruner.original_masks))


def _factors(pruner):
    """GUM's factors on the penalty; none elsewhere."""
    return getattr(pruner.rule, "factors", [])


def same(ours, theirs):
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(("case", "clip"), [*((case, 1.0) for case in CASES), ("gum", 0.05)])
def test_the_trainer_gives_the_masks_of_train(case, clip, tokenizer, tmp_path):
    """At every step, with the same batches, rates and clipping."""
    theirs, by_train = made(case)
    options = {"steps": STEPS, "batch_size": 4, "lr": LR, "seed": SEED, "clip": clip}
    history = gl.train(
        theirs, tokenizer, make_examples(12), pruner=by_train, record=1, progress=False, **options
    )
    ours, by_trainer = made(case)
    recorder = Recorder(by_trainer)
    trainer(ours, by_trainer, tokenizer, tmp_path, recorder, max_grad_norm=clip).train()
    assert same([torch.cat(frame.masks) for frame in history.frames], recorder.masks)
    assert same(by_train.original_masks, by_trainer.original_masks)
    assert by_train.returned == by_trainer.returned
    assert 0 < by_trainer.fraction_kept < 0.6
    assert max(recorder.norms) <= clip * 1.001
    for a, b in zip(by_train.scores, by_trainer.scores, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    for a, b in zip(theirs.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("case", ["movement", "movement-gate", "gum", "soft_movement"])
def test_two_halves_accumulated_are_one_batch(case, tokenizer, tmp_path):
    """GUM's Gram sums weigh the halves alike whatever their length, so its scores only come near.

    Were each half to fade the sums, its factors would differ by 20 %.
    """
    every_token = {"gram_every": 1, "gram_tokens": 1.0} if case == "gum" else {}
    (one, whole), (two, split) = made(case, **every_token), made(case, **every_token)
    trainer(one, whole, tokenizer, tmp_path).train()
    trainer(two, split, tokenizer, tmp_path, split=True).train()
    assert whole.step_count == split.step_count == STEPS
    assert same(whole.masks, split.masks)
    for a, b in zip(whole.scores, split.scores, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=5e-3 if case == "gum" else 1e-5)
    for a, b in zip(_factors(whole), _factors(split), strict=True):
        torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), rtol=0.05, atol=0.0)


@pytest.mark.parametrize("case", ["movement", "gum", "gum-gate", "obs"])
def test_under_bf16_autocast_it_prunes_to_the_exact_count(case, tokenizer, tmp_path):
    model, pruner = made(case)
    dtypes = set()
    model.transformer.h[0].mlp.c_proj.register_forward_hook(lambda *a: dtypes.add(a[2].dtype))
    trainer(model, pruner, tokenizer, tmp_path, bf16=True).train()
    assert dtypes == {torch.bfloat16}
    assert sum(int(m.sum()) for m in pruner.masks) == round(0.4 * 48)
    assert all(s.isfinite().all() and s.dtype != torch.bfloat16 for s in pruner.scores)
    assert all(p.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize(
    ("case", "at"), [*((case, 7) for case in RESUMED), ("gum", 6), ("gum-gate", 12)]
)
def test_a_resumed_run_ends_as_one_that_never_stopped(case, at, tokenizer, tmp_path):
    """Stopped in the middle of the schedule or when the masks are already frozen (12)."""
    model, whole = made(case)
    never = Recorder(whole)
    trainer(model, whole, tokenizer, tmp_path, never, save_strategy="steps", save_steps=at).train()
    for folder in tmp_path.iterdir():  # what a run stopped there leaves: its last checkpoint
        if folder.name != f"checkpoint-{at}":
            shutil.rmtree(folder)
    other, resumed = made(case, weights=1)  # weights and scores come from the checkpoint
    recorder = Recorder(resumed)
    trainer(other, resumed, tokenizer, tmp_path, recorder).train(resume_from_checkpoint=True)
    assert same(never.masks[at:], recorder.masks)
    assert resumed.step_count == STEPS
    assert same(whole.masks, resumed.masks)
    assert same(whole.scores, resumed.scores)
    assert whole.returned == resumed.returned
    assert same(model.parameters(), other.parameters())
    assert hooks_of(model) == hooks_of(other)
    assert_states_close(whole.rule.state_dict(), resumed.rule.state_dict(), rtol=0, atol=0)


def test_a_run_of_another_length_is_refused(tokenizer, tmp_path):
    model, pruner = made("gum")
    with pytest.raises(gl.GumlabError, match=r"made for 14 steps and has done 0; .* is 12\. Make"):
        trainer(model, pruner, tokenizer, tmp_path, max_steps=12).train()
    assert pruner.step_count == 0


def test_a_used_pruner_is_refused(tokenizer, tmp_path):
    model, pruner = made("random")
    run = trainer(model, pruner, tokenizer, tmp_path)
    run.train()
    with pytest.raises(gl.GumlabError, match="has done 14"):
        run.train()


def test_the_pruner_of_another_model_is_refused(tokenizer, tmp_path):
    _, pruner = made("random")
    with pytest.raises(gl.GumlabError, match="made for another model"):
        trainer(tiny("gpt2"), pruner, tokenizer, tmp_path).train()


@pytest.mark.parametrize("setting", ["fp16", "load_best_model_at_end"])
def test_what_would_spoil_scores_or_masks_is_refused(setting, tokenizer, tmp_path):
    model, pruner = made("random")
    run = trainer(model, pruner, tokenizer, tmp_path)
    setattr(run.args, setting, True)  # neither works on a CPU or without an evaluation
    with pytest.raises(gl.GumlabError, match=f"Pruning needs .*{setting}=False"):
        run.callback_handler.on_train_begin(run.args, _begun(), run.control)


def _begun():
    return TrainerState(max_steps=STEPS)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The checkpoints of a GUM run after 3 and 6 steps."""
    folder = tmp_path_factory.mktemp("saved")
    model, pruner = made("gum")
    run = trainer(model, pruner, word_tokenizer(), folder, save_strategy="steps", save_steps=3)
    run.add_callback(_StopAt(6))
    run.train()
    return folder


class _StopAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.step


def test_a_run_that_was_stopped_goes_on_in_another_folder(saved, tokenizer, tmp_path):
    model, whole = made("gum")
    trainer(model, whole, tokenizer, tmp_path).train()
    other, resumed = made("gum", weights=1)
    last = saved / "checkpoint-6"
    run = trainer(other, resumed, tokenizer, tmp_path / "elsewhere", resume_from=last)
    run.train(resume_from_checkpoint=str(last))
    assert same(whole.masks, resumed.masks)
    assert same(whole.scores, resumed.scores)


def test_a_checkpoint_without_a_pruner_says_so(saved, tokenizer, tmp_path):
    folder = shutil.copytree(saved / "checkpoint-3", tmp_path / "checkpoint-3")
    for damage in (lambda p: p.write_bytes(p.read_bytes()[:99]), lambda p: p.unlink()):
        damage(folder / STATE_FILE)
        model, pruner = made("gum")
        with pytest.raises(gl.GumlabError, match=r"no whole state in .*checkpoint-3"):
            trainer(model, pruner, tokenizer, tmp_path).train(resume_from_checkpoint=True)


@pytest.mark.parametrize(
    ("case", "options", "sentence"),
    [
        ("movement", {}, r"has method='gum' \(here 'movement'\), scope='global' \(here 'layer'\)"),
        ("gum", {"keep": 0.5}, r"has keep=0.4 \(here 0.5\)\. Make the pruner with the saved"),
        ("gum", {"gradient": "gate"}, "has gradient='neuron'"),
    ],
    ids=["method", "keep", "gradient"],
)
def test_a_checkpoint_of_another_pruner_says_so(case, options, sentence, saved, tokenizer):
    model, pruner = made(case, **options)
    with pytest.raises(gl.GumlabError, match=sentence):
        trainer(model, pruner, tokenizer, saved).train(resume_from_checkpoint=True)
    assert pruner.step_count == 0


def test_the_state_of_other_weights_is_refused(saved):
    _, pruner = made("gum")
    with pytest.raises(gl.GumlabError, match="belongs to other weights than the model's"):
        pruner.load_state_dict(load_state(saved / "checkpoint-3" / STATE_FILE))


def test_the_state_is_one_file_that_nothing_unpickles(tmp_path):
    (_, fresh), (_, again) = made("gum"), made("gum")
    save_state(fresh.state_dict(), tmp_path / STATE_FILE)
    assert [p.name for p in tmp_path.iterdir()] == [STATE_FILE]
    again.load_state_dict(load_state(tmp_path / STATE_FILE))
    assert same(fresh.masks, again.masks)
    assert "PruningCallback(Pruner(gum" in repr(gl.PruningCallback(again))
