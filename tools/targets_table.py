"""Where a pruned model runs, architecture by architecture: results/targets.md.

    python tools/targets_table.py                # all of it, a few minutes
    python tools/targets_table.py gpt2 mixtral   # these rows alone, printed and not stored

A row is a small random model of transformers, pruned to layers of unequal widths (for `plain`: of
equal ones). A column is a target. A cell is a check that ran, or the sentence by which gumlab
refuses. A new target is a function of `Case` in TARGETS; it raises `gl.GumlabError` for what is
refused, ImportError where its package is not here, and fails as a test does.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

import gumlab as gl

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from helpers import ROOT
from helpers.gguf_files import byte_level, wrapped
from helpers.models import ARCHITECTURES, EXPERTS, random_masks, tiny
from helpers.texts import make_examples, one_batch, word_tokenizer

RESULT = ROOT / "results" / "targets.md"
SCRIPT = ROOT / "tests" / "helpers" / "plain_transformers.py"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ROWS = (*ARCHITECTURES, "phi", "bloom", *EXPERTS)
IDS = list(range(4, 16))
WRITTEN = 8  # tokens after a prompt
RUNS, REFUSED, NO_PACKAGE, FAILED, EMPTY = "runs", "refused", "not tried", "FAILED", "–"


@dataclass
class Case:
    """An architecture, and a folder to work in."""

    name: str
    folder: Path
    tokenizer: Any = field(default_factory=word_tokenizer)

    @cached_property
    def dense(self) -> nn.Module:
        return tiny(self.name)

    def pruned(self, equal: bool = False) -> nn.Module:
        """A smaller copy; GumlabError where gumlab prunes none of its kind."""
        return gl.shrink(self.dense, random_masks(self.dense, equal))


def in_llama_cpp(case: Case, dtype: str, equal: bool = False) -> None:
    """Written as GGUF and opened by llama.cpp, which continues a prompt."""
    importlib.import_module("xllamacpp")  # before the file: where it is missing nothing is tried
    from gumlab.serving import LlamaCpp

    tokenizer = wrapped(byte_level())
    dense = tiny(case.name, vocab_size=len(tokenizer))
    model = gl.shrink(dense, random_masks(dense, equal))
    path = gl.export(model, tokenizer, case.folder / f"{dtype}.gguf", dtype=dtype)
    request = {"return_tokens": True, "verbose": True, "ignore_eos": True}
    answer = LlamaCpp(path, exact=True).complete(IDS, tokens=WRITTEN, **request)
    tokens = answer["__verbose"]["tokens"]
    assert len(tokens) == WRITTEN, tokens
    if dtype == "f32":
        expected = written(model, bad_words_ids=[[tokenizer.eos_token_id]])[len(IDS) :]
        assert tokens == expected, (tokens, expected)


def gguf_equal(case: Case) -> None:
    """Layers of equal widths, written as one GGUF file; llama.cpp writes the same tokens."""
    in_llama_cpp(case, "f32", equal=True)


def gguf_f32(case: Case) -> None:
    """Written as one GGUF file; llama.cpp opens it and writes the same tokens."""
    in_llama_cpp(case, "f32")


def gguf_f16(case: Case) -> None:
    """The same in float16; llama.cpp opens it and writes."""
    in_llama_cpp(case, "f16")


def gguf_q8_0(case: Case) -> None:
    """The same in 8 bits where the rows allow it; llama.cpp opens it and writes."""
    in_llama_cpp(case, "q8_0")


def peft(case: Case) -> None:
    """LoRA on every map: a step, saved, loaded on the pruned folder, merged, saved and loaded."""
    from peft import LoraConfig, PeftModel, get_peft_model

    base = gl.save(case.pruned(), case.tokenizer, case.folder / "base")
    lora = LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", r=2)
    model = get_peft_model(gl.load(base, device="cpu")[0], lora)
    step(model)
    model.save_pretrained(case.folder / "adapter")
    adapted = PeftModel.from_pretrained(gl.load(base, device="cpu")[0], case.folder / "adapter")
    torch.testing.assert_close(logits(adapted), logits(model))
    merged = gl.save(adapted.merge_and_unload(), case.tokenizer, case.folder / "merged")
    loaded, _ = gl.load(merged, device="cpu")
    torch.testing.assert_close(logits(loaded), logits(model), rtol=1e-3, atol=1e-4)


def trainer(case: Case) -> None:
    """Two steps of Hugging Face's Trainer, its own save, and `gl.load` of that."""
    model = case.pruned()
    before = logits(model)
    rows = one_batch(model, case.tokenizer, make_examples(8))
    data = [{key: value[i] for key, value in rows.items()} for i in range(8)]
    folder = case.folder / "trainer"
    arguments = transformers.TrainingArguments(
        str(folder),
        max_steps=2,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    run = transformers.Trainer(
        model, arguments, train_dataset=data, processing_class=case.tokenizer
    )
    run.train()
    run.save_model()
    loaded, _ = gl.load(folder, device="cpu")
    assert torch.equal(logits(loaded), logits(model))
    assert not torch.equal(logits(model), before)


def harness(case: Case) -> None:
    """The model in memory, in EleutherAI's harness: the log-likelihood of a target by hand."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model = case.pruned()
    context, target = "w4 w9 w12", " w5 w7"
    request = Instance("loglikelihood", {}, (context, target), 0)
    ((found, _),) = HFLM(pretrained=model, tokenizer=case.tokenizer).loglikelihood([request])
    prompt = case.tokenizer(context)["input_ids"]
    whole = case.tokenizer(context + target)["input_ids"]
    chances = logits(model, whole).log_softmax(-1)
    wanted = sum(chances[i - 1, whole[i]].item() for i in range(len(prompt), len(whole)))
    assert abs(found - wanted) < 1e-3, (found, wanted)


# column -> how a folder is saved that transformers then loads, in a process without gumlab
FOLDERS: dict[str, dict[str, Any]] = {
    "plain": {"equal": True},
    "padded": {"pad": True},
    "with code": {"with_code": True},
}
# column -> a check in this process
TARGETS: dict[str, Callable[[Case], None]] = {
    "GGUF, equal widths": gguf_equal,
    "GGUF f32": gguf_f32,
    "GGUF f16": gguf_f16,
    "GGUF q8_0": gguf_q8_0,
    "PEFT": peft,
    "Trainer": trainer,
    "harness": harness,
}
COLUMNS = (*FOLDERS, *TARGETS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    rows = parser.parse_args().rows or ROWS
    unknown = sorted(set(rows) - set(ROWS))
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)}")
    transformers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as scratch:
        outcomes = outcomes_of(rows, Path(scratch))
    text = document(rows, outcomes)
    print(text)
    if rows is ROWS:
        RESULT.write_text(text, encoding="utf-8")
    failed = {place: found for place, found in outcomes.items() if cell(found) == FAILED}
    for (name, column), found in failed.items():
        print(f"{name}, {column}: {found}", file=sys.stderr)
    sys.exit(bool(failed))


def outcomes_of(rows: Any, scratch: Path) -> dict[tuple[str, str], str]:
    """What came of every row and column: RUNS, NO_PACKAGE, REFUSED and the sentence, or else."""
    cases = []
    for name in rows:
        (scratch / name).mkdir()
        cases.append(Case(name, scratch / name))
    outcomes = by_transformers(cases)
    for column, check in TARGETS.items():
        for case in cases:
            outcomes[case.name, column] = outcome_of(check, case)
    return outcomes


def outcome_of(check: Callable[[Case], None], case: Case) -> str:
    """What came of a check in this process."""
    try:
        check(case)
    except gl.GumlabError as error:
        return f"{REFUSED}: {error}"
    except ImportError:
        return NO_PACKAGE
    except Exception as error:  # of whatever package: the others are still to be tried
        return f"{type(error).__name__}: {error}"
    return RUNS


def by_transformers(cases: list[Case]) -> dict[tuple[str, str], str]:
    """What came of the folders that transformers loads, all in one process without gumlab."""
    outcomes = {}
    wanted = {}
    jobs = []
    for column, options in FOLDERS.items():
        for case in cases:
            place = (case.name, column)
            try:
                model = case.pruned(equal=options.get("equal", False))
                how = {key: value for key, value in options.items() if key != "equal"}
                folder = gl.save(model, case.tokenizer, case.folder / column, **how)
            except gl.GumlabError as error:
                outcomes[place] = f"{REFUSED}: {error}"
                continue
            card = (folder / "README.md").read_text(encoding="utf-8")
            blocks = [block for block in BLOCK.findall(card) if "import gumlab" not in block]
            if not blocks:
                outcomes[place] = f"{REFUSED}: the card has no block for transformers"
                continue
            code = blocks[0].replace(f'"{column}"', repr(str(folder)))
            jobs.append({"code": code, "ids": IDS})
            wanted[place] = written(model)
    if jobs:
        answers = subprocess.run(
            [sys.executable, "-I", str(SCRIPT)],
            input=json.dumps(jobs),
            capture_output=True,
            text=True,
            env=os.environ | {"HF_HOME": str(cases[0].folder / "hub"), "HF_HUB_OFFLINE": "1"},
        )
        results = json.loads(answers.stdout.splitlines()[-1])
        for (place, want), result in zip(wanted.items(), results, strict=True):
            same = result.get("written") == want
            outcomes[place] = RUNS if same else result.get("error", "it writes another text")
    return outcomes


def document(rows: Any, outcomes: dict[tuple[str, str], str]) -> str:
    """The table, what its columns mean, and the refusals by number."""
    notes: list[str] = []
    table = [f"| | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name in rows:
        cells = []
        for column in COLUMNS:
            found = outcomes.get((name, column), EMPTY)
            sentence = f"{name}: {found.removeprefix(REFUSED + ': ')}"
            if cell(found) == REFUSED and sentence not in notes:
                notes.append(sentence)
            number = f" ({notes.index(sentence) + 1})" if cell(found) == REFUSED else ""
            cells.append(cell(found) + number)
        table.append(f"| {name} | {' | '.join(cells)} |")
    lines = [
        "# Where a pruned model runs",
        "",
        "Made by `python tools/targets_table.py` with transformers "
        f"{transformers.__version__}, torch {torch.__version__}. A row is a small random model of "
        'an architecture, pruned to layers of unequal widths; "runs" is a check that ran.',
        "",
        "- plain: equal widths, saved as they are; padded: `pad=True`; with code: "
        "`with_code=True`. Each is loaded by the block of its model card in a process without "
        "gumlab, and writes the same tokens.",
        *(f"- {column}: {check.__doc__}" for column, check in TARGETS.items()),
        "",
        *table,
        *([""] if notes else []),
        *(f"{number}. {note}" for number, note in enumerate(notes, start=1)),
    ]
    return "\n".join(lines) + "\n"


def cell(outcome: str) -> str:
    """An outcome in a word."""
    if outcome.startswith(REFUSED):
        return REFUSED
    return outcome if outcome in (RUNS, NO_PACKAGE, EMPTY) else FAILED


def logits(model: nn.Module, ids: list[int] = IDS) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([ids])).logits[0]


def step(model: nn.Module) -> None:
    """One step of gradient descent on a sequence."""
    ids = torch.tensor([IDS])
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-1)
    model.train()(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()


def written(model: nn.Module, **options: Any) -> list[int]:
    ids = torch.tensor([IDS])
    return model.generate(ids, max_new_tokens=WRITTEN, do_sample=False, **options)[0].tolist()


if __name__ == "__main__":
    main()
