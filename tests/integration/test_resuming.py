"""A run that keeps its state in a file: stopped anywhere, it ends bit for bit as one that was not.

Most of them cut, so that widths, the optimizer's moments and the running sums come back cut too.
"""

import os
import random
import signal
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from helpers.children import alone, killed
from helpers.methods import METHOD_CASES
from helpers.models import hooks_of, loss_of, tiny
from helpers.runs import assert_states_close, same
from helpers.texts import make_examples, word_tokenizer
from tqdm.auto import tqdm

import gumlab as gl
from gumlab.feedforward import neurons
from gumlab.io.states import load_state, save_state
from gumlab.rules import GUM, Rule
from gumlab.tasks.batches import shuffled

STEPS = 14
PRUNERS = {
    **METHOD_CASES,
    "obs": ("obs", {"gram_every": 3}),
    "twin_filter": ("magnitude", {"gram_every": 3, "twin_filter": 0.5}),
}
SETTINGS = {"batch_size": 4, "lr": 1e-2, "progress": False}
pytestmark = pytest.mark.filterwarnings("ignore:Soft movement keeps:UserWarning")


def frame_of(examples):
    """The examples as a pandas DataFrame of prompts and targets."""
    return pd.DataFrame({"prompt": e.prompt, "target": e.target} for e in examples)


def other_tokenizer():
    """One that ends a text by another token."""
    tokenizer = word_tokenizer()
    tokenizer.eos_token = "<bos>"
    return tokenizer


class Stopped(Exception):
    """Stops a run in the middle."""


def stop_at(model, step):
    """Raise Stopped in the model's forward pass of that step, from 1; never for None."""
    seen = []

    def count(*_):
        seen.append(0)
        if len(seen) == step:
            raise Stopped

    model.register_forward_pre_hook(count)
    return seen


def kept(case, file, seed=0, stop=None, distil=False, name="gpt2", **options):
    """(model, pruner, history, steps done) of a run with dropout whose state is in a file."""
    model = tiny(name, seed, resid_pdrop=0.1) if name == "gpt2" else tiny(name, seed)
    method, extra = PRUNERS[case]
    pruner = gl.Pruner(model, method, 0.4, STEPS, **(extra | {"cut": True} | options))
    seen = stop_at(model, stop)
    history = gl.train(
        model,
        word_tokenizer(),
        make_examples(12),
        steps=STEPS,
        pruner=pruner,
        teacher=tiny(name, 7) if distil else None,
        record=5,
        state=file,
        state_every=3,
        **SETTINGS,
    )
    return model, pruner, history, len(seen)


def assert_ends_as_one_never_stopped(case, folder, stop, **options):
    model, pruner, history, _ = kept(case, folder / "whole", **options)
    with pytest.raises(Stopped):
        kept(case, folder / "stopped", stop=stop, **options)
    other, resumed, later, steps = kept(case, folder / "stopped", **options)
    assert steps == STEPS - (stop - 1) // 3 * 3
    assert same(model.parameters(), other.parameters())
    assert same(pruner.original_masks, resumed.original_masks)
    assert same(pruner.original_scores, resumed.original_scores)
    assert (pruner.returned, history.kept) == (resumed.returned, later.kept)
    assert history.losses == later.losses
    assert [frame.step for frame in later.frames] == [5, 10]
    assert hooks_of(model) == hooks_of(other)
    if len({layer.width for layer in neurons(model)}) == 1:
        assert model.config.to_dict() == other.config.to_dict()
    states = [load_state(folder / name) for name in ("whole", "stopped")]
    for state in states:
        state["history"].pop("seconds")
    assert_states_close(*states, rtol=0, atol=0)
    return model, pruner


@pytest.mark.parametrize("case", PRUNERS)
def test_a_run_that_cuts_ends_as_one_never_stopped(case, tmp_path):
    """Stopped at its ninth step, when neurons have left and more will."""
    model, pruner = assert_ends_as_one_never_stopped(case, tmp_path, stop=9)
    assert [layer.width for layer in neurons(model)] == [len(mask) for mask in pruner.masks]
    assert pruner.fraction_kept < 0.6


@pytest.mark.parametrize(
    ("stop", "options"),
    [
        (2, {}),  # no state was written yet
        (4, {}),  # just behind a state
        (13, {}),  # the masks are frozen
        (9, {"cut": False}),
        (9, {"cut": False, "final": True, "freeze": False}),
        (9, {"distil": True}),
        (9, {"name": "phi3"}),
    ],
)
def test_so_it_is_at_any_step_and_for_any_run(stop, options, tmp_path):
    assert_ends_as_one_never_stopped("gum-gate", tmp_path, stop, **options)


def test_a_run_that_came_to_its_end_is_not_done_again(tmp_path):
    model, _, history, _ = kept("movement-layer-gate", tmp_path / "run")
    other, pruner, later, steps = kept("movement-layer-gate", tmp_path / "run")
    assert steps == 0
    assert same(model.parameters(), other.parameters())
    assert (later.losses, later.seconds) == (history.losses, history.seconds)
    assert pruner.step_count == STEPS


def test_a_run_without_a_pruner_goes_on_too(tmp_path):
    def run(stop=None, file="stopped"):
        model = tiny("gpt2", resid_pdrop=0.1)
        stop_at(model, stop)
        options = {"steps": 8, "state": tmp_path / file, "state_every": 3, **SETTINGS}
        return gl.train(model, word_tokenizer(), make_examples(12), **options), model

    history, model = run(file="whole")
    with pytest.raises(Stopped):
        run(stop=6)
    later, other = run()
    assert history.losses == later.losses
    assert same(model.parameters(), other.parameters())


def by_hand(file, stop=None, seed=0):
    """A loop of one's own that keeps its state, and goes on where there is one."""
    model = tiny("gpt2", seed).train()
    pruner = gl.Pruner(model, "gum", 0.4, STEPS, gram_every=2, cut=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    if file.exists():
        state = load_state(file)
        pruner.cut_to(state["pruner"])
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        pruner.load_state_dict(state["pruner"])
    batches = list(shuffled(model, word_tokenizer(), make_examples(12), 4, STEPS, seed=0))
    for batch in batches[pruner.step_count : stop]:
        loss_of(model, batch).backward()
        pruner.step(optimizer)
        optimizer.step()
        optimizer.zero_grad()
    parts = {"model": model, "optimizer": optimizer, "pruner": pruner}
    save_state({name: part.state_dict() for name, part in parts.items()}, file)
    return model


def test_a_loop_of_your_own_goes_on_too(tmp_path):
    whole = by_hand(tmp_path / "whole")
    by_hand(tmp_path / "stopped", stop=8)
    gone_on = by_hand(tmp_path / "stopped", seed=1)
    assert same(whole.parameters(), gone_on.parameters())
    states = [load_state(tmp_path / name) for name in ("whole", "stopped")]
    assert_states_close(*states, rtol=0, atol=0)


def kill_run(work: str, kills: int) -> list[int]:
    """Kill a run by SIGKILL and SIGTERM in turns, `kills` times; after how many steps each fell.

    It ends with the state of one that was never killed, and nothing lies beside its file.
    """
    draw, folder = random.Random(0), Path(work)
    file, steps = folder / "killed", []

    def run() -> object:
        return kept("gum-gate", file)

    word_tokenizer()
    tiny("gpt2")  # what a run imports; it runs in children, so that no fork inherits a lock
    killed(lambda: kept("gum-gate", folder / "whole"), lambda: True, None, 0)
    while True:
        before = file.stat().st_mtime_ns if file.exists() else 0
        pause = draw.choice([0, 0.002, 0.01]) if len(steps) < kills else None
        begun = lambda b=before: file.exists() and file.stat().st_mtime_ns > b  # noqa: E731
        how = signal.SIGTERM if len(steps) % 2 else signal.SIGKILL
        if not killed(run, begun, pause, 120, how):
            break
        steps.append(load_state(file)["done"] if file.exists() else 0)
    states = [load_state(path) for path in (file, folder / "whole")]
    for state in states:
        state["history"].pop("seconds")
    assert_states_close(*states, rtol=0, atol=0)
    assert sorted(os.listdir(folder)) == ["killed", "whole"]
    return steps


def kill_children(work: str, kills: int) -> tuple[list[int], bool]:
    """What `kill_run` and `draw_after_a_kill` say, in one process."""
    run, bar = Path(work, "run"), Path(work, "bar")
    run.mkdir()
    bar.mkdir()
    return kill_run(str(run), kills), draw_after_a_kill(str(bar))


@pytest.fixture(scope="module")
def after_kills(tmp_path_factory):
    """The steps that a killed run had done at each kill; whether a bar was drawn after one."""
    if not hasattr(os, "fork"):
        pytest.skip("kills forked processes")
    return alone("test_resuming", "kill_children", tmp_path_factory.mktemp("kills"), 3)


def test_a_killed_run_ends_as_one_never_killed(after_kills):
    steps, _ = after_kills
    assert len(steps) >= 1
    assert steps == sorted(steps)
    assert any(0 < step < STEPS for step in steps), f"no kill fell in the middle: {steps}"


def draw_after_a_kill(work: str) -> bool:
    """Whether a progress bar is still drawn when a child was killed while it drew its own."""
    begun = Path(work) / "begun"
    list(tqdm(range(1), disable=False))  # which makes the lock that all bars share

    def draw_for_ever() -> None:
        with tqdm.get_lock():
            begun.touch()
            time.sleep(600)

    assert killed(draw_for_ever, begun.exists, 0, 120)
    bar = threading.Thread(target=lambda: list(tqdm(range(1), disable=False)), daemon=True)
    bar.start()
    bar.join(20)
    return not bar.is_alive()


def test_a_process_killed_while_it_draws_stops_no_other(after_kills):
    _, is_drawn = after_kills
    assert is_drawn


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The state of a run of movement that was stopped in the middle."""
    path = tmp_path_factory.mktemp("run") / "run.state"
    with pytest.raises(Stopped):
        kept("movement-layer-neuron", path, stop=9)
    return path


def again(file, model=None, method="movement", how=None, data=None, tokenizer=None, **options):
    model = tiny("gpt2") if model is None else model
    pruner = None
    if method:
        steps = options.get("steps", STEPS)
        pruner = gl.Pruner(model, method, steps=steps, **({"keep": 0.4, "cut": True} | (how or {})))
    settings = SETTINGS | {"steps": STEPS, "record": 5, "state": file} | options
    data = make_examples(12) if data is None else data
    gl.train(model, tokenizer or word_tokenizer(), data, pruner=pruner, **settings)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"steps": 12}, r"has steps=14 \(here 12\)\. Call with its settings to go on with it"),
        ({"lr": 0.1}, r"has lr=0.01 \(here 0.1\)\. .* another path to begin anew"),
        ({"seed": 3}, "has seed=0"),
        ({"batch_size": 5}, "has batch_size=4"),
        ({"precision": "fp32"}, r"has precision=None \(here 'fp32'\)"),
        ({"data": make_examples(11)}, "has tokens='"),
        ({"data": frame_of(make_examples(11))}, "has tokens='"),
        ({"tokenizer": other_tokenizer()}, "has tokens='"),
        ({"model": tiny("gpt2", 1)}, "has weights at the start='.* model as it was when that run"),
        ({"teacher": tiny("gpt2", 3)}, "has weights of the teacher=None"),
        ({"method": None, "record": None}, "record=5 .*, pruned=True .here False"),
        ({"method": "random"}, r"saved pruner has method='movement' \(here 'random'\)"),
        ({"how": {"keep": 0.5}}, r"saved pruner has keep=0.4 \(here 0.5\)"),
        ({"how": {"cut": False}}, r"saved pruner has final=True \(here False\), cut=True"),
        ({"model": tiny("gpt2", n_inner=32)}, "has weights at the start='"),
        ({"model": tiny("gpt2", n_embd=32)}, "has weights at the start='"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_run_of_other_settings_is_refused(options, sentence, file):
    before = file.read_bytes()
    with pytest.raises(gl.GumlabError, match=sentence):
        again(file, **options)
    assert file.read_bytes() == before


def test_a_frame_of_the_same_rows_goes_on(file, tmp_path):
    copied = tmp_path / "copy.state"
    copied.write_bytes(file.read_bytes())
    model = tiny("gpt2", resid_pdrop=0.1)
    how = PRUNERS["movement-layer-neuron"][1]
    again(copied, model, how=how, data=frame_of(make_examples(12)))
    assert load_state(copied)["done"] == STEPS


def test_the_options_of_a_rule_that_was_made_by_hand_count_too(tmp_path):
    def run(penalty):
        model = tiny("gpt2")
        pruner = gl.Pruner(model, GUM(penalty=penalty), 0.4, 6, cut=True)
        options = {"steps": 6, "state": tmp_path / "run.state", **SETTINGS}
        return gl.train(model, word_tokenizer(), make_examples(12), pruner=pruner, **options)

    assert run(0.5).losses == run(0.5).losses
    with pytest.raises(gl.GumlabError, match=r"saved pruner has penalty=0.5 \(here 50.0\)"):
        run(50.0)


class Shared(Rule):
    """A rule of one's own: a share of the neurons of each layer, weighted neuron by neuron."""

    def __init__(self, shares, weights):
        self.shares = shares
        self.weights = weights

    def scores(self, now):
        pairs = zip(self.shares, now.layers, strict=True)
        return [share * self.weights[: layer.width] for share, layer in pairs]


@pytest.mark.parametrize(
    "others",
    [([1.0, 2.0], torch.arange(64.0)), ([1.0, 1.0], torch.arange(64.0).flip(0))],
    ids=["a list", "a tensor"],
)
def test_so_do_its_lists_and_tensors(others, gpt2):
    def pruner(shares, weights):
        return gl.Pruner(gpt2, Shared(shares, weights), 0.4, 6)

    state = pruner([1.0, 1.0], torch.arange(64.0)).state_dict()
    pruner([1.0, 1.0], torch.arange(64.0)).load_state_dict(state)
    with pytest.raises(gl.GumlabError, match=r"saved pruner has (shares|weights)=.* \(here"):
        pruner(*others).load_state_dict(state)


def damaged(path, file):
    path.write_bytes(file.read_bytes()[:999])


def a_pruners(path, file):
    save_state(gl.Pruner(tiny("gpt2"), "random", steps=2).state_dict(), path)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (damaged, r"no whole state in .*spoilt\. Give state= another path"),
        (a_pruners, "holds no run of gumlab.train. Give state= another path"),
        (lambda path, file: path.mkdir(), "is a folder. Name a file: .*run.state"),
    ],
)
def test_a_file_that_holds_no_run_is_refused(spoil, sentence, file, tmp_path):
    spoil(tmp_path / "spoilt", file)
    with pytest.raises(gl.GumlabError, match=sentence):
        again(tmp_path / "spoilt")


def test_what_cannot_be_kept_is_refused_before_the_run(tmp_path):
    (tmp_path / "file").write_text("")
    for options, sentence in (
        ({"file": None, "state_every": 2}, "no file is given"),
        ({"file": 3}, "state must be the path of a file; got 3"),
        ({"file": tmp_path / "x", "state_every": 0}, "state_every must be a whole number, 1 or"),
        ({"file": tmp_path / "file" / "x"}, "folder of state=.* cannot be made"),
    ):
        with pytest.raises(gl.GumlabError, match=sentence):
            again(**options)
