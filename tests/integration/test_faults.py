"""Faults in runs that last: kills, full and read-only disks, two at once, hostile SQL, and leaks.

Each takes a count: the suite's is short, `benchmarks/quality/faults.py` has the long one. What
befalls a saved folder is in test_checkpoint_faults, a study that is killed in test_study.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import json
import os
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pandas as pd
import pytest
import torch
from helpers import hostile
from helpers.children import alone, killed
from helpers.hostile import TOWNS
from helpers.methods import METHOD_CASES
from helpers.models import hooks_of, logits_of, loss_of, tiny
from helpers.runs import assert_states_close
from helpers.texts import make_examples, one_batch, word_tokenizer
from test_checkpoint_faults import contents
from test_study import FEW, base, data, figures  # noqa: F401, base and data are fixtures

import gumlab as gl
from gumlab.study import Study
from gumlab.tasks import sql

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")

# ------------------------------------------------------- a Trainer's checkpoints and their pruner


def train_on(folder: Path, fallen: Path) -> None:
    """Train from the newest checkpoint that can be resumed to the end, and store where it stands.

    Checkpoints that a kill left half-written are taken away, and listed in the file `fallen`.
    """
    from test_trainer import made, trainer

    from gumlab.io.states import save_state
    from gumlab.trainer import STATE_FILE

    steps = {int(p.name.split("-")[1]): p for p in folder.glob("checkpoint-*")}
    for last in [*(steps[step] for step in sorted(steps, reverse=True)), None]:
        model, pruner = made("gum", weights=0 if last is None else 1)
        saving = {"save_strategy": "steps", "save_steps": 1}
        run = trainer(model, pruner, word_tokenizer(), folder, **saving)
        try:
            run.train(resume_from_checkpoint=last and str(last))
            break
        except Exception as error:  # Hugging Face's or ours, for a folder that is not whole
            if last is None or (last / STATE_FILE).exists():
                raise
            shutil.rmtree(last)
            with fallen.open("a") as log:
                log.write(f"{type(error).__name__}\n")
    save_state(pruner.state_dict(), folder / STATE_FILE)


def kill_trainer(work: str, kills: int) -> dict[str, int]:
    """Kill a Trainer with a pruner, `kills` times; each goes on from its last whole checkpoint.

    How many kills there were, how many checkpoints they left half-written, and how many runs came
    to their end, which all have the masks, scores and moments of one never killed.
    """
    from test_trainer import made

    from gumlab.io.states import load_state
    from gumlab.trainer import STATE_FILE

    draw, fallen = random.Random(0), Path(work) / "fallen"
    whole, folder = Path(work) / "whole", Path(work) / "killed"
    made("gum")  # what a run imports; it runs in children, so that no fork inherits a thread's lock
    killed(lambda: train_on(whole, fallen), lambda: True, None, 0)
    wanted = load_state(whole / STATE_FILE)
    done, ended = 0, 0
    while done < kills or folder.exists():
        more = len(list(folder.glob("checkpoint-*"))) + draw.randint(1, 4)
        pause = draw.choice([0, 0.01, 0.03, 0.1]) if done < kills else None
        begun = lambda n=more: len(list(folder.glob("checkpoint-*"))) >= n  # noqa: E731
        if killed(lambda: train_on(folder, fallen), begun, pause, 120):
            done += 1
            continue
        found = load_state(folder / STATE_FILE)
        for state in (found, wanted):
            state.pop("grams", None)  # for which frozen masks have no more use
            state.pop("scores_when_cut", None)  # nothing is cut here
        assert_states_close(found, wanted)
        shutil.rmtree(folder)
        ended += 1
    lost = fallen.read_text().split() if fallen.exists() else []
    return {"kills": done, "half-written": len(lost), "ended": ended}


@forks
def test_a_killed_trainer_ends_with_the_same_masks(tmp_path):
    pytest.importorskip("accelerate", reason="the Trainer needs accelerate")
    told = alone("test_faults", "kill_trainer", tmp_path, 3)
    assert told["kills"] == 3
    assert told["ended"] >= 1


# ------------------------------------------------------------------- disks, folders, two at once


@contextlib.contextmanager
def small_disk() -> Iterator[Path]:
    """A disk of one megabyte, of which a file takes all but 20 kilobytes."""
    folder = Path(tempfile.mkdtemp())
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        folder.rmdir()
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    try:
        fill(folder, 20_000)
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


def fill(folder: Path, left: int) -> Path:
    """A file that takes all of a disk but `left` bytes."""
    disk = os.statvfs(folder)
    path = folder / "filler"
    path.write_bytes(b"0" * max(0, disk.f_bavail * disk.f_frsize - left))
    return path


@pytest.mark.skipif(not shutil.which("mount"), reason="this system has no mount")
def test_a_disk_that_is_really_full(base, data, gpt2, tokenizer):  # noqa: F811
    """save and study say so in a sentence, leave nothing half-written, and go on with more room."""
    with small_disk() as disk:
        with pytest.raises(
            gl.GumlabError, match=r"Could not save to .*No space left.*half-written"
        ):
            gl.save(gpt2, tokenizer, disk / "model")
        assert os.listdir(disk) == ["filler"]
        runs = disk / "runs"
        grid = {"model": base, "task": "e2e", "method": "random", **FEW}
        study = Study(grid, runs, data_dir=data)
        (disk / "filler").unlink()
        filler = fill(disk, 0)
        with pytest.raises(gl.GumlabError, match=r"Cannot write to .*No space left on device\. No"):
            study.run()
        assert os.listdir(runs) == []
        filler.unlink()
        assert len(study.run().table()) == 1
        gl.save(gpt2, tokenizer, disk / "model")
        assert gl.load(disk / "model", device="cpu")


def test_a_read_only_folder_is_known_before_the_work_and_can_be_read(base, data):  # noqa: F811
    done = {"model": base, "task": "e2e", "method": "random", **FEW}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "runs"
        Study(done, folder, data_dir=data).run()
        before, user = contents(folder), os.geteuid()
        os.chmod(name, 0o755)
        os.chmod(folder, 0o555)
        study = Study([done, done | {"method": "magnitude"}], folder, data_dir=data)
        if user == 0:
            os.seteuid(65534)  # nobody: the rights of a folder bind everyone but root
        try:
            with (
                mock.patch.object(study, "_do", side_effect=AssertionError("worked in vain")),
                pytest.raises(gl.GumlabError, match=r"Cannot write to .*Permission denied\. Noth"),
            ):
                study.run()
            assert len(study.table()) == 1
        finally:
            os.seteuid(user)
            os.chmod(folder, 0o755)
        assert contents(folder) == before


def two_at_once(base: str, data: str, folder: Path, seeds: int) -> int:  # noqa: F811
    """Two studies in one folder, of any name: both end with the table of one alone; its rows."""
    code = """
import json, os, sys
import torch, gumlab as gl

torch.set_num_threads(1)
grid, alone, shared, data = json.loads(sys.argv[1]), *sys.argv[2:]
gl.Study(grid, alone, data_dir=data).run()
children = []
for _ in range(2):
    children.append(os.fork())
    if not children[-1]:
        gl.Study(grid, shared, data_dir=data).run()
        os._exit(0)
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""
    grid = {"model": base, "task": "e2e", **FEW, "method": "gum", "distil": [False, True]}
    grid["seed"] = list(range(seeds))
    alone, shared = folder / "alone", folder / "two [at] once, Grüße 模型 é*"
    given = [json.dumps(grid), str(alone), str(shared), data]
    done = subprocess.run([sys.executable, "-c", code, *given], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    tables = [Study(grid, f, data_dir=data).table() for f in (alone, shared)]
    assert "error" not in tables[0]
    pd.testing.assert_frame_equal(*map(figures, tables))
    assert sorted(os.listdir(alone)) == sorted(os.listdir(shared))
    return len(tables[1])


@forks
def test_two_studies_in_one_folder_of_an_odd_name(base, data, tmp_path):  # noqa: F811
    assert two_at_once(base, data, tmp_path, 1) == 3


# ------------------------------------------------------------------------------------ hostile SQL


class Watched(sqlite3.Connection):
    """A connection that counts the steps of its statements and looks at its tables at the end."""

    most, early, found = 0, 0, None

    def set_progress_handler(self, handler, every):
        self.calls = 0

        def counted():
            self.calls += 1
            steps, stop = self.calls * every, handler()
            Watched.most = max(Watched.most, steps)
            Watched.early += bool(stop and steps < sql.STEP_LIMIT)
            return stop

        super().set_progress_handler(counted, every)

    def close(self):
        self.set_authorizer(None)
        super().set_progress_handler(None, 0)
        tables = [name for (name,) in self.execute("SELECT name FROM sqlite_master")]
        rows = {t: self.execute(f"SELECT * FROM {sql.quoted(t)}").fetchall() for t in tables}
        Watched.found = (rows, [name for _, name, _ in self.execute("PRAGMA database_list")])
        super().close()


def fire_at_executor(folder: Path, count: int) -> tuple[Counter, float]:
    """`count` hostile statements: how they ended, and the longest's seconds by their limit.

    None may write, go beyond the limit of steps or raise anything but a GumlabError.
    """
    connect, ends, draw = sqlite3.connect, Counter(), random.Random(0)
    towns = {table: rows for table, (_, rows) in TOWNS.items()}
    Watched.most = Watched.early = longest = 0
    before, given = os.getcwd(), copy.deepcopy(TOWNS)
    os.chdir(folder)
    try:
        with (
            mock.patch.object(
                sqlite3, "connect", lambda *a, **k: connect(*a, factory=Watched, **k)
            ),
            mock.patch.object(sql, "SECONDS", 0.05),
        ):
            for _ in range(count):
                statement, Watched.found = hostile.statement(draw), (towns, ["main"])
                began = time.thread_time()
                try:
                    rows = sql.run_query(statement, given)
                except gl.GumlabError as error:
                    words = str(error).replace("SQL is", "SQL").split()
                    ends[words[1].rstrip(":")] += 1
                else:
                    assert all(isinstance(row, tuple) for row in rows)
                    ends["answered"] += 1
                longest = max(longest, (time.thread_time() - began) / sql.SECONDS)
                assert Watched.found == (towns, ["main"]), statement
                assert Watched.most <= sql.STEP_LIMIT, statement
    finally:
        os.chdir(before)
    assert given == TOWNS
    assert os.listdir(folder) == []
    return ends + Counter({"by their seconds": Watched.early}), longest


def test_hostile_statements_write_nothing_and_end(tmp_path):
    ends, _ = fire_at_executor(tmp_path, 150)
    assert min(ends[end] for end in ("refused", "wrong", "stopped", "answered")) > 0, ends
    assert ends["by their seconds"] > 0, ends


# ------------------------------------------------------------------------- what a pruner leaves

PRUNERS = METHOD_CASES | {
    "obs": ("obs", {"gram_every": 1}),
    "twin_filter": ("magnitude", {"gram_every": 1, "twin_filter": 0.5}),
}


def step(model, case, batch, steps=3, done=3):
    """A pruner's steps without an optimizer's: the masks move, the weights do not."""
    name, options = PRUNERS[case]
    pruner = gl.Pruner(model, name, 0.4, steps, **options)
    for _ in range(done):
        loss_of(model.train(), batch).backward()
        pruner.step()
        model.zero_grad(set_to_none=True)
    return pruner


@pytest.mark.parametrize("done", [0, 1, 3])
@pytest.mark.parametrize("case", PRUNERS)
@pytest.mark.filterwarnings("ignore:Soft movement keeps:UserWarning")
def test_a_model_without_its_pruner_is_bit_for_bit_what_it_was(case, done, gpt2, tokenizer):
    batch = one_batch(gpt2, tokenizer, make_examples(6))
    weights, logits = copy.deepcopy(gpt2.state_dict()), logits_of(gpt2, batch)
    settings, names = gpt2.config.to_dict(), set(vars(gpt2))
    pruner = step(gpt2, case, batch, done=done)
    assert hooks_of(gpt2) > 0
    assert torch.equal(logits_of(gpt2, batch), logits) == (pruner.fraction_kept == 1)
    pruner.remove()
    assert hooks_of(gpt2) == 0
    assert torch.equal(logits_of(gpt2, batch), logits)
    assert all(torch.equal(weights[k], v) for k, v in gpt2.state_dict().items())
    assert gpt2.config.to_dict() == settings
    assert set(vars(gpt2)) == names
    assert all(p.requires_grad for p in gpt2.parameters())


def cycles(count: int) -> tuple[list[int], list[float]]:
    """Prune, shrink and remove, `count` times on one model: what is alive at 0, 1/4 and the end.

    The number of tensors, and the process's memory in MB (its greatest so far).
    """
    model = tiny("gpt2")
    batch = one_batch(model, word_tokenizer(), make_examples(6))
    logits, alive, memory = logits_of(model, batch), [], []
    for i in range(count + 1):
        if i in (0, count // 4, count):
            gc.collect()
            alive.append(sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects()))
            memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        pruner = step(model, list(PRUNERS)[i % len(PRUNERS)], batch)
        small = gl.shrink(model, pruner.masks)
        pruner.remove()
        assert logits_of(small, batch).isfinite().all()
        del pruner, small
    assert hooks_of(model) == 0
    assert torch.equal(logits_of(model, batch), logits)
    return alive, memory


@pytest.mark.filterwarnings("ignore:Soft movement keeps:UserWarning")
def test_cycles_of_pruning_and_shrinking_leave_no_tensor_alive():
    alive, _ = cycles(40)
    assert alive[1] == alive[2], alive
