"""The commands: one JSON object or a page for a person, one sentence for a mistake."""

import inspect
import json
import os
import signal
import subprocess
import sys

import pytest
import transformers
from helpers.models import random_masks, tiny
from helpers.texts import word_tokenizer

import gumlab as gl
from gumlab import measurement, serving, tasks
from gumlab.cli import commands, main, printing
from gumlab.pruner import Pruner
from gumlab.tasks import Task

FEW = ["--steps", "2", "--generated", "2", "--batch-size", "4"]


@pytest.fixture(scope="module")
def small_task() -> Task:
    full = gl.load_task("restaurants")
    return Task("restaurants", "bleu", full.train[:60], full.validation[:20], full.test[:20])


@pytest.fixture
def gumlab(monkeypatch, capsys, small_task):
    """Run a command in this process, on a few examples: (exit code, stdout, stderr)."""
    load_task = tasks.load_task
    monkeypatch.setattr(
        tasks,
        "load_task",
        lambda *given: small_task if given == ("restaurants", None) else load_task(*given),
    )

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["gumlab", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        return left.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A small random model, and the same with unequal widths."""
    root, model = tmp_path_factory.mktemp("with spaces é"), tiny("gpt2", n_positions=128)
    cut = gl.shrink(model, random_masks(model, equal=False))
    return [gl.save(m, word_tokenizer(), root / name) for m, name in ((model, "a"), (cut, "b"))]


def names(folder):
    return sorted(os.listdir(folder))


def test_prune_saves_what_it_measured(gumlab, small_task, tmp_path):
    out = tmp_path / "é small"
    code, text, error = gumlab(
        "prune", "tiny-gpt2", "--method", "gum", "--keep", 0.1, "--out", out, *FEW, "--json"
    )
    assert code == 0, error
    row = json.loads(text)
    assert row["neurons"] == sum(row["widths"]) == round(0.1 * 2048)
    assert row["keep"] == pytest.approx(0.1, abs=1e-3)
    assert "/2 [" in error  # the progress bar: how far it is drawn depends on the machine
    model, tokenizer = gl.load(out, device="cpu")
    assert [layer.width for layer in gl.neurons(model)] == row["widths"]
    scores = gl.evaluate(model, tokenizer, small_task, generated=2)
    assert scores == pytest.approx({k: row[k] for k in scores}, abs=1e-4)
    card = (out / "README.md").read_text(encoding="utf-8")
    assert f"| loss | {row['loss']:.4g} |" in card
    assert "| method | gum |" in card


def test_prune_in_one_shot_is_gl_prune(gumlab, folders, small_task, tmp_path):
    options = ["--method", "wanda", "--scope", "global", "--steps", "0", "--generated", "0"]
    code, text, error = gumlab(
        "prune", folders[0], "--keep", 0.5, *options, "--pad", "--out", tmp_path / "m"
    )
    assert code == 0, error
    assert "wanda" in text
    model, tokenizer = gl.load(folders[0], device="cpu")
    same = gl.prune(model, "wanda", tokenizer, small_task, keep=0.5, scope="global")
    gl.save(same, tokenizer, tmp_path / "same", pad=True)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("m", "same")]
    assert weights[0] == weights[1]


def test_prune_adds_the_code_that_unequal_widths_need(gumlab, folders, tmp_path):
    options = ["--method", "magnitude", "--steps", 0, "--generated", 0, "--with-code"]
    for scope, keep, is_there in (("global", 0.4, True), ("layer", 0.5, False)):
        out = tmp_path / scope
        code, _, error = gumlab(
            "prune", folders[0], *options, "--scope", scope, "--keep", keep, "--out", out
        )
        assert code == 0, error
        assert (out / "modeling_pruned.py").exists() == is_there
        assert ("--with-code had nothing to do" in error) != is_there
    code, _, error = gumlab("prune", folders[0], *options, "--pad", "--out", tmp_path / "both")
    assert code == 1
    assert "Give one of the two" in error
    assert not (tmp_path / "both").exists()


@pytest.mark.parametrize("method", ["magnitude", "soft_movement", "wanda"])
def test_every_kind_of_method_prunes_and_distils(gumlab, folders, tmp_path, method):
    options = ["--method", method, "--keep", "0.5", "--teacher", folders[0], *FEW]
    code, text, error = gumlab("prune", folders[0], *options, "--out", tmp_path / "m", "--json")
    assert code == 0, error
    assert json.loads(text)["neurons"] < 48
    assert names(tmp_path) == ["m"]


@pytest.mark.parametrize("there", [True, False])
def test_ctrl_c_leaves_nothing_half_written(gumlab, folders, tmp_path, monkeypatch, there):
    out = tmp_path / "m"
    if there:
        gl.save(gl.load(folders[1], device="cpu")[0], word_tokenizer(), out)
    before = {p.name: p.read_bytes() for p in out.iterdir()} if there else {}

    def stop(self, *_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Pruner, "step", stop)
    code, text, error = gumlab("prune", folders[0], "--method", "random", *FEW, "--out", out)
    assert code == 130
    assert text == ""
    assert f"stopped, and nothing was written to {out}" in error
    assert names(tmp_path) == (["m"] if there else [])
    assert ({p.name: p.read_bytes() for p in out.iterdir()} if there else {}) == before


def test_evaluate_and_redundancy_give_what_python_gives(gumlab, folders, small_task):
    model, tokenizer = gl.load(folders[1], device="cpu")
    options = ["--limit", 20, "--batch-size", 10, "--json"]
    code, text, _ = gumlab(
        "evaluate", folders[1], "--split", "validation", "--generated", 3, *options
    )
    expected = gl.evaluate(
        model, tokenizer, small_task, "validation", limit=20, generated=3, batch_size=10
    )
    row = json.loads(text)
    assert code == 0
    assert {k: row[k] for k in expected} == pytest.approx(expected)
    code, text, _ = gumlab("redundancy", folders[1], *options)
    expected, row = (
        gl.redundancy(model, tokenizer, small_task, limit=20, batch_size=10),
        json.loads(text),
    )
    assert code == 0
    assert row["uniqueness"] == pytest.approx(expected.uniqueness)
    assert [layer["neurons"] for layer in row["layers"]] == [7, 11]
    assert (row["robust"], row["concentrated"]) == (None, expected.concentrated)
    code, text, _ = gumlab("redundancy", folders[1], *options, "--robust", "centred")
    centred = gl.redundancy(model, tokenizer, small_task, limit=20, batch_size=10, robust="centred")
    assert json.loads(text)["uniqueness"] == pytest.approx(centred.uniqueness)
    assert centred.uniqueness != expected.uniqueness
    code, text, _ = gumlab("redundancy", folders[1], *options[:-1])
    assert text.splitlines()[-3].split()[:3] == ["layer", "neurons", "uniqueness"]


def test_measure_sets_models_side_by_side(gumlab, folders):
    few = ["--batch", 1, "--batches", 3, "--tokens", 8, "--decoded", 2, "--repeats", 2]
    code, text, _ = gumlab("measure", *folders, *few, "--json")
    rows = json.loads(text)["models"]
    assert code == 0
    assert [row["model"] for row in rows] == [str(f) for f in folders]
    assert [row["widths"] for row in rows] == [[24, 24], [7, 11]]
    assert rows[0]["bytes"] > rows[1]["bytes"]
    for row in rows:
        assert [(speed["batch"], speed["tokens"]) for speed in row["speed"]] == [(1, 8), (3, 8)]
        assert row["speed"][0]["peak_bytes"] < row["speed"][1]["peak_bytes"]
        assert row["latency_ms"] == row["speed"][0]["prefill_ms"] > 0
    code, text, _ = gumlab("measure", *folders, *few)
    lines = text.splitlines()
    assert "latency_ms" in lines[0]
    assert "decode_tokens_per_s" in lines[3]
    assert [line.split()[-9] for line in lines[4:8]] == ["1", "3", "1", "3"]  # batch


def test_measure_says_why_little_is_gained(gumlab, folders, monkeypatch):
    monkeypatch.setattr(measurement, "_turn", lambda *_: (8, 1.0, 100.0))  # both as fast
    monkeypatch.setattr(measurement, "_peak", lambda *_: 1)
    for options in ([], ["--json"]):
        _, text, _ = gumlab("measure", *folders, *options)
        assert f"why {folders[1]}" in text
        assert "about 100% of it goes into neither" in text
        assert f"why {folders[0]}" not in text


@pytest.mark.parametrize("command", ["evaluate", "redundancy", "measure", "demo", "prune"])
def test_ctrl_c_is_one_sentence_and_130(gumlab, folders, tmp_path, monkeypatch, command):
    def stop(self, *_, **__):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(transformers.GPT2LMHeadModel, "forward", stop)
    model = ["--model", folders[0]] if command == "demo" else [folders[0]]
    out = ["--out", "m"] if command in ("demo", "prune") else []
    code, text, error = gumlab(command, *model, *out)
    assert code == 130
    assert "stopped" in error.splitlines()[-1]
    assert "Traceback" not in error
    assert "Aborted" not in error
    assert not text or command == "demo"
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_signal_in_the_middle_of_an_evaluation(tmp_path):
    """The real thing: a process that computes is sent the signal that Ctrl-C sends."""
    command = [sys.executable, "-m", "gumlab.cli", "evaluate", "tiny-gpt2", "--batch-size", "1"]
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        # a suite that was started in the background ignores the signal, and so would its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    seen = b""
    while b"batch" not in seen:  # the bar: it is at work
        more = os.read(running.stderr.fileno(), 1000)
        assert more
        seen += more
    running.send_signal(signal.SIGINT)
    text, error = running.communicate(timeout=60)
    assert running.returncode == 130
    assert text == b""
    assert error.endswith(b"gumlab: stopped before the end.\n")
    assert b"Traceback" not in error


def test_exit_codes_of_wrong_usage(gumlab, folders):
    """2 for what the command line does not allow, as everywhere; 1 is a GumlabError."""
    for wrong in (["evaluate"], ["evaluate", folders[0], "--limits", "3"], ["prunes"],
                  ["prune", folders[0]], ["measure", folders[0], "--batch", "one"]):  # fmt: skip
        code, text, error = gumlab(*wrong)
        assert (code, text) == (2, "")
        assert "Usage:" in error


def parameters(function):
    return set(inspect.signature(function).parameters)


def test_options_are_named_as_in_python():
    """Each option of a command is an argument of the function behind it, or of the command only."""
    only = {"as_json", "data_dir", "out", "pad", "task", "with_code"}
    inside = parameters(gl.train) | parameters(gl.Pruner) | parameters(gl.evaluate)
    behind = {
        commands.prune: inside | parameters(gl.prune),
        commands.evaluate: parameters(gl.evaluate),
        commands.redundancy: parameters(gl.redundancy),
        commands.measure: parameters(measurement.compare) | parameters(serving.compare),
        commands.export: parameters(gl.export),
    }
    for command, names in behind.items():
        assert parameters(command) - only <= names | {"model"}


def test_doctor_exits_by_what_it_found(gumlab, folders, tmp_path):
    code, text, _ = gumlab("doctor", folders[1], "--json")
    assert code == 0
    assert json.loads(text)["loads_with"] == ["gumlab"]
    code, text, error = gumlab("doctor", tmp_path)
    assert (code, text, error) == (1, "[FAIL] The folder is empty.\n", "")
    code, text, error = gumlab("doctor", tmp_path, "--json")
    assert code == 1
    assert json.loads(text)["findings"] == [{"good": False, "text": "The folder is empty."}]


def test_json_has_no_nan(capsys):
    printing.show({"loss": float("nan"), "layers": [{"sensitivity": float("inf")}]}, True)
    assert json.loads(capsys.readouterr().out) == {"loss": None, "layers": [{"sensitivity": None}]}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["prune", "A", "--keep", "0"], "keep must be a fraction in (0, 1]"),
        (["prune", "A", "--steps", "-1"], "steps must be a whole number, 0 or more"),
        (["prune", "A", "--method", "gum", "--steps", "0"], "steps"),
        (["prune", "A", "--method", "gumm"], "gum"),
        (["prune", "A", "--method", "magnitude", "--scope", "all"], "all"),
        (["prune", "A", "--teacher", "tiny-gpt2"], "has other tokens than"),
        (["prune", "A", "--task", "restaurant"], "Did you mean 'restaurants'?"),
        (["prune", "A", "--out", "A"], "is the model itself and would be lost"),
        (["prune", "A", "--out", "thesis"], "holds files that are not a checkpoint"),
        (["prune", "A", "--out", "thesis/chapter1.txt"], "Cannot write to"),
        (["evaluate", "A", "--split", "tests"], "Did you mean 'test'"),
        (["evaluate", "nowhere/model"], "not a folder here"),
        (["redundancy", "A", "--data-dir", "x"], "reads no files"),
        (["measure", "A", "tiny-gpt"], "Did you mean 'tiny-gpt2'"),
        (["measure", "A", "--batch", "0"], "batches must be a whole number, 1 or more"),
        (["measure", "A", "m.gguf"], "so the two do not compare"),
        (["measure", "m.gguf", "--batch", "1"], "--batches would change nothing"),
        (["measure", "A", "--threads", "1"], "--threads would change nothing"),
        (["measure", "m.gguf"], "There is no file m.gguf"),
        (["export", "A", "m"], "Let it end in .gguf"),
        (["export", "A", "thesis/chapter1.txt/m.gguf"], "chapter1.txt is a file"),
        (["export", "A", "m.gguf", "--dtype", "q8"], "Did you mean 'q8_0'"),
        (["export", "A", "m.gguf"], "is not byte-level BPE"),
        (["doctor", "nowhere"], "cannot be looked into"),
        (["demo", "--keep", "1.2"], "keep must be a fraction in (0, 1]"),
        (["demo", "--task", "restaurant"], "Did you mean 'restaurants'?"),
        (["demo", "--task", "e2e", "--data-dir", "nowhere"], "nowhere"),
        (["demo", "--model", "tiny-gpt"], "tiny-gpt"),
        (["demo", "--steps", "0"], "steps"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "says",
)
def test_bad_input_is_one_sentence_and_changes_nothing(
    gumlab, folders, tmp_path, monkeypatch, arguments, words
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("years of work")
    given = [str(folders[0]) if a == "A" else a for a in arguments]
    if given[0] == "prune" and "--out" not in given:
        given += ["--out", "m"]
    as_json = [] if given[0] == "demo" else ["--json"]
    code, text, error = gumlab(*given, *as_json)
    assert (code, text) == (1, "")
    assert words in error
    assert len(error.strip().splitlines()) == 1
    assert names(tmp_path) == ["thesis"]
    assert names(tmp_path / "thesis") == ["chapter1.txt"]
