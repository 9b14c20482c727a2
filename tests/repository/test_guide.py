"""What the guide says to type does what the guide says it does."""

from __future__ import annotations

import functools
import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from helpers.gguf_files import byte_level, llama, write_gguf

from gumlab.io.bases import BASES
from gumlab.tasks import Example, restaurants

ROOT = Path(__file__).parents[2]
GUIDE = [ROOT / "docs" / "index.md", *sorted((ROOT / "docs" / "guide").glob("*.md"))]
SIZES = {"train": 640, "validation": 80, "test": 80}  # of which the shortest tenth is taken
DRAW = restaurants._examples.__wrapped__
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str]]:
    """The code blocks of a page of the guide: language and text."""
    return FENCE.findall(page.read_text(encoding="utf-8"))


def a_model_and_data() -> None:
    """What "Your own model and data" takes for granted: the reader's own, in this folder."""
    import gumlab as gl

    model, tokenizer = gl.load("tiny-gpt2")
    gl.save(model, tokenizer, "my-model")
    vocabulary = byte_level().get_vocab_size()
    write_gguf(Path("my-model.gguf"), llama(vocabulary), kind="Q8_0")
    examples = gl.load_task("restaurants").train[:100]
    rows = [json.dumps({"prompt": e.prompt, "target": e.target}) for e in examples]
    Path("my-data.jsonl").write_text("\n".join(rows), encoding="utf-8")


@functools.cache
def short_and_few(split: str) -> tuple[Example, ...]:
    """The shortest tenth of the drawn examples of a split."""
    drawn = DRAW(split)
    return tuple(sorted(drawn, key=lambda e: len(e.prompt + e.target))[: len(drawn) // 10])


@pytest.fixture
def few_examples(page, monkeypatch):
    """The guide's task is short, but on the page that prints how long it is."""
    if page.stem != "start":
        monkeypatch.setattr(restaurants, "SIZES", SIZES)
        monkeypatch.setattr(restaurants, "_examples", short_and_few)


@pytest.mark.slow
@pytest.mark.usefixtures("few_examples")
@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true")  # Trainer, no GPU
@pytest.mark.filterwarnings("ignore:.*do not fit into the context of 96")  # of the small GGUF
@pytest.mark.parametrize("page", GUIDE, ids=lambda path: path.stem)
def test_the_guide_does_what_it_says(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if page.stem == "your_model_and_data":
        a_model_and_data()
    names: dict[str, object] = {}
    printed = None
    for language, text in blocks(page):
        capsys.readouterr()
        if language == "python":
            exec(compile(text, page.name, "exec"), names)
            printed = capsys.readouterr().out
        elif language == "text":
            assert printed == text
        elif language == "json":
            assert {"prompt", "target"} <= json.loads(text).keys()
        else:
            assert language == "sh", f"{page.name} has a block of {language}"
            for line in text.splitlines():
                typed(line)


def typed(line: str) -> None:
    """Run a `gumlab` command; of what builds an environment, see that it could be run here."""
    from gumlab.cli.application import app

    words = shlex.split(line)
    if words[:2] == ["gumlab", "fetch"]:  # which would download
        assert words[2:] == [name for name in BASES if name == words[2]]
        return
    if words[0] == "gumlab":
        assert not app(words[1:], standalone_mode=False), line
        return
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    match words:
        case ["make", target]:
            assert f"\n{target}:" in (ROOT / "Makefile").read_text(encoding="utf-8")
        case [".venv/bin/pip", "install", "-c", constraints, "-e", package]:
            assert (ROOT / constraints).exists()
            extras = package.removeprefix(".[").removesuffix("]").split(",")
            assert set(extras) <= project["optional-dependencies"].keys()
        case [".venv/bin/gumlab", command]:
            assert command in {known.callback.__name__ for known in app.registered_commands}
        case _:
            assert words == ["python3", "-m", "venv", ".venv"], f"nobody has run: {line}"
