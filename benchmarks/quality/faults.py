"""What gumlab does when things go wrong, counted: results/faults.md.

    python benchmarks/quality/faults.py

The long versions of tests/integration/test_faults.py and its neighbours: kills, damaged files,
full and read-only disks, hostile SQL, leaks. Each asserts what must hold, and tells how often it
was tried.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import harness

sys.path.insert(0, str(harness.ROOT / "tests"))
sys.path.insert(0, str(harness.ROOT / "tests" / "integration"))
import pytest
import test_checkpoint_faults
import test_faults
import test_study
from helpers.children import alone
from helpers.models import random_masks, tiny
from helpers.texts import word_tokenizer

import gumlab as gl

Told = Iterator[tuple[str, int, str]]  # what was tried, how often, how it ended
Tries = Callable[[int], int]  # how often a fault is tried, of the long version's count


def study(folder: Path, tries: Tries) -> Told:
    base, data = test_study.make_base(folder), test_study.make_data(folder)
    done = test_study.killed_study(base, data, folder / "killed", tries(10))
    at = ", ".join(map(str, done))
    yield "kill -9 of a study", len(done), f"the table of one not killed (runs done of 15: {at})"
    rows = test_faults.two_at_once(base, data, folder / "two", tries(5))
    yield "two studies at once in a folder of an odd name", rows, "each row that of one alone"
    test_faults.test_a_read_only_folder_is_known_before_the_work_and_can_be_read(base, data)
    yield "a study in a read-only folder", 1, "one sentence before the work; its table is read"
    model, tokenizer = tiny("gpt2"), word_tokenizer()
    try:
        test_faults.test_a_disk_that_is_really_full(base, data, model, tokenizer)
        yield "a full disk, for save and study", 2, "one sentence, nothing half-written, goes on"
    except pytest.skip.Exception as reason:
        yield "a full disk, for save and study", 0, f"skipped: {reason}"


def saves(folder: Path, tries: Tries) -> Told:
    states = test_checkpoint_faults.killed_saves(folder, tries(60))
    ends = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    yield "kill -9 of a save", states.total(), f"the checkpoint is whole or not there yet: {ends}"
    model, tokenizer = tiny("gpt2"), word_tokenizer()
    small = gl.shrink(model, random_masks(model, False))
    path = gl.save(small, tokenizer, folder / "model")
    test_checkpoint_faults.test_a_read_only_folder_is_a_sentence_and_changes_nothing(
        path, model, tokenizer
    )
    yield "a save into a read-only folder", 2, "one sentence, nothing changed"
    refused = test_checkpoint_faults.damaged(path, tries(200), seed=1)
    yield (
        "truncations and flipped bits",
        tries(200),
        f"{refused} refused, the others without effect",
    )


def trainer(folder: Path, tries: Tries) -> Told:
    told = alone("test_faults", "kill_trainer", folder, tries(20))
    ends = (
        f"{told['half-written']} checkpoints half-written and refused; {told['ended']} runs ended "
    )
    ends += "with the masks, scores and moments of one never killed"
    yield "kill -9 of a Trainer that saves every step", told["kills"], ends


def statements(folder: Path, tries: Tries) -> Told:
    ends, longest = test_faults.fire_at_executor(folder, tries(1000))
    early = ends.pop("by their seconds")
    text = ", ".join(f"{count} {end}" for end, count in ends.most_common())
    text += f" ({early} by their seconds; the longest took {longest:.2f} of its limit)"
    yield "hostile SQL statements", ends.total(), f"{text}; no write, no other exception"


def leaks(folder: Path, tries: Tries) -> Told:
    alive, memory = test_faults.cycles(200)
    assert alive[1] == alive[2], alive
    first = memory[1] - memory[0]
    rest = memory[2] - memory[1]
    assert rest <= first, memory
    text = f"{alive[2] - alive[1]} tensors more alive after 200 than after 50; memory grew by "
    text += f"{first:.1f} MB in the first 50 and {rest:.1f} MB in the other 150"
    yield "prune, shrink and remove on one model", 200, text


PARTS: tuple[Callable[[Path, Tries], Told], ...] = (statements, leaks, saves, trainer, study)


def main() -> None:
    args = harness.parsed(harness.options(__doc__))

    def tries(count: int) -> int:
        return max(2, count // 20) if args.quick else count

    rows = []
    for part in PARTS:
        with tempfile.TemporaryDirectory() as name:
            for what, times, end in part(Path(name), tries):
                print(f"{what}: {times}. {end}", flush=True)
                rows.append({"fault": what, "times": times, "what was seen": end})
    text = f"# What happens when things go wrong\n\n{harness.made_by(args.command)}\n\n"
    harness.write(args, "faults.md", text + harness.markdown(rows))


if __name__ == "__main__":
    main()
