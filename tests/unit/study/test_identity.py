"""What a run is known by: what changes its row changes its file's name, and nothing else does."""

from __future__ import annotations

import functools
import importlib.util
import json
import linecache
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.models import tiny
from helpers.texts import make_examples, word_tokenizer

import gumlab as gl
from gumlab import rules
from gumlab.scoring import mean_similarity, wanda
from gumlab.study import Cell, Method, Study, identity, named
from gumlab.study import runs as runs_module
from gumlab.study.grid import expand
from gumlab.study.identity import as_text, described, digest

FEW = {"steps": 2, "batch_size": 4, "generated": 0, "keep": 0.5, "method": "random"}


def half(gram, kept):
    return gram.diagonal() / 2


def third(gram, kept):
    return gram.diagonal() / 3


def scaled(factor):
    def by_factor(gram, kept):
        return gram.diagonal() * factor

    return by_factor


@dataclass
class Scaled:
    factor: float

    def __call__(self, gram, kept):
        return gram.diagonal() * self.factor

    def method(self, gram, kept):
        return gram.diagonal() - self.factor


@dataclass
class Outgoing(rules.Rule):
    power: float = 1.0

    def scores(self, now):
        return [layer.outgoing().detach().norm(dim=1) ** self.power for layer in now.layers]


class Holds:
    def __init__(self, *values):
        self.values = values


# pairs of values that are the same setting, made twice, as two processes would
SAME = [
    (half, half),
    (mean_similarity, gl.scoring.mean_similarity),
    (functools.partial(half, kept=None), functools.partial(half, kept=None)),
    (scaled(2), scaled(2)),
    (Scaled(2), Scaled(2)),
    (Scaled(2).method, Scaled(2).method),
    (Outgoing(2.0), Outgoing(2.0)),
    (rules.GUM(penalty=0.1), rules.GUM(penalty=0.1)),
    (torch.arange(3), torch.arange(3)),
    (np.arange(3), np.arange(3)),
    (torch.ones(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.bfloat16)),
    ({"b", "a", "c"}, {"c", "b", "a"}),
    ({"x": {"y": [1, half]}}, {"x": {"y": [1, half]}}),
    (np.float64(0.5), 0.5),
    (np.int32(3), 3),
    (torch.tensor(3), 3),
    (Path("x/y"), Path("x") / "y"),
    (torch.float32, torch.float32),
    (torch.relu, torch.relu),
    (Holds(1, torch.ones(2)), Holds(1, torch.ones(2))),
    (torch.no_grad()(half), torch.no_grad()(half)),
]
# values none of which is another
DIFFERENT = [
    half, third, mean_similarity, scaled(2), scaled(3), Scaled(2), Scaled(3), Scaled(2).method,
    functools.partial(half, kept=1), functools.partial(half, kept=2), functools.partial(third),
    Outgoing(), Outgoing(2.0), rules.Random(), rules.Magnitude(), rules.GUM(), rules.GUM(penalty=1),
    rules.GUM(similarity=half), torch.arange(3), torch.arange(3.0), torch.arange(4), np.arange(3.0),
    torch.arange(4).view(2, 2), {"a", "b"}, ["a", "b"], {"a": 1}, {"a": 2}, {"a": {"b": 1}},
    1, 2, 1.5, "1", None, True, torch.relu, torch.sigmoid, Holds(1), Holds(2), torch.float32,
]  # fmt: skip
NAMELESS = [
    lambda gram, kept: gram.diagonal(),
    functools.partial(lambda gram, kept, by: gram.diagonal() * by, by=2),
    Holds(lambda x: x),
    {"nested": [lambda x: x]},
    object(),
    iter([1]),
    np.array([half], dtype=object),
    scaled(lambda x: x),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_the_same_made_twice_is_the_same(one, other):
    assert digest({"similarity": one}) == digest({"similarity": other})
    assert "0x" not in json.dumps(described(one))


def test_no_two_settings_are_one():
    digests = {digest({"similarity": value}) for value in DIFFERENT}
    assert len(digests) == len(DIFFERENT)


@pytest.mark.parametrize("value", NAMELESS)
def test_what_has_no_name_is_refused_before_the_work(value, tmp_path):
    with pytest.raises(gl.GumlabError, match="would not be known again tomorrow"):
        digest({"similarity": value})


def test_a_value_that_holds_itself_is_refused():
    ring: list = []
    ring.append(ring)
    with pytest.raises(gl.GumlabError, match="would not be known again"):
        digest(ring)


@pytest.mark.parametrize("kind", [*rules.METHODS.values(), Outgoing])
def test_a_rule_that_has_pruned_is_the_same_rule(kind, gpt2):
    rule = kind()
    before = digest(rule)
    gl.Pruner(gpt2, rule, 0.5, 5)
    assert digest(rule) == before


GRID = {"model": "tiny-gpt2", "task": "tables", "method": "gum", "steps": 5}
IN_ANOTHER_PROCESS = """
import sys; sys.path[:0] = ["tests", "tests/unit/study"]
from test_identity import *
print(expand(GRID | {"similarity": half})[0].name)
print(expand(GRID | {"similarity": functools.partial(half, kept=scaled(2))})[0].name)
print(expand(GRID | {"method": Method("mine", Outgoing(2.0))})[0].name)
print(expand(GRID | {"method": Method("mine", wanda, one_shot=True)})[0].name)
"""


def test_the_names_are_those_of_another_process():
    """So a study with functions among its settings goes on tomorrow."""
    code = [sys.executable, "-c", IN_ANOTHER_PROCESS]
    root = Path(__file__).parents[3]
    told = subprocess.run(code, capture_output=True, text=True, check=True, cwd=root).stdout
    here = [
        {"similarity": half},
        {"similarity": functools.partial(half, kept=scaled(2))},
        {"method": Method("mine", Outgoing(2.0))},
        {"method": Method("mine", wanda, one_shot=True)},
    ]
    assert told.split() == [expand(GRID | more)[0].name for more in here]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (half, "half"),
        (scaled(2), "by_factor"),
        (Scaled(2), "Scaled"),
        (functools.partial(half, kept=half), "half(kept=half)"),
        (np.float64(0.5), "0.5"),
        (0.5, "0.5"),
    ],
)
def test_a_label_has_no_address(value, words):
    assert (
        named("gum", 5, similarity=half, penalty=0.5).label == "gum, similarity half, penalty 0.5"
    )
    assert str(as_text(value)) == words


# --- code of one's own ----------------------------------------------------------------------------

MINE = """
import functools
import torch
from torch import nn
from gumlab.rules import Rule

ALPHA = 1.0
IDLE = 1.0
TABLE = {"weights": torch.tensor([1.0, 2.0]), "norm": torch.norm}
SQUARE = lambda x: x**2
NET = nn.Linear(1, 1)
nn.init.constant_(NET.weight, 0.5)
nn.init.zeros_(NET.bias)


class Config:
    def __init__(self, power):
        self.power = power


CONFIG = Config(2)


@functools.cache
def root(x):
    return x**0.5


def helper(x):
    return x**ALPHA


def even(n):
    return n == 0 or odd(n - 1)


def odd(n):
    return n > 0 and even(n - 1)


def doubled(function):
    @functools.wraps(function)
    def wrapper(layer, stats):
        return 2 * function(layer, stats)

    return wrapper


def by_constant(layer, stats):
    return stats.energy**ALPHA


def by_helper(layer, stats):
    return helper(stats.energy)


def by_loop(layer, stats):
    return sum([ALPHA * energy for energy in stats.energy])


def by_table(layer, stats):
    return TABLE["norm"](stats.energy * TABLE["weights"])


def by_lambda(layer, stats):
    return SQUARE(stats.energy)


def by_net(layer, stats):
    return NET(stats.energy)


def by_object(layer, stats):
    return stats.energy**CONFIG.power


def by_cached(layer, stats):
    return root(stats.energy)


def by_two(layer, stats):
    return stats.energy if even(layer.width) else -stats.energy


@doubled
def by_decorated(layer, stats):
    return stats.energy


class Base(Rule):
    sign = 1

    def scores(self, now):
        return [self.sign * self.of(layer) for layer in now.layers]

    def of(self, layer):
        return helper(layer.outgoing().detach().norm(dim=1))


class Child(Base):
    @property
    def needs_grams(self):
        return bool(ALPHA)


class Decaying(Rule):
    def __init__(self, decay):
        self._set(decay)
        self._optimizer = None

    def _set(self, decay):
        self._decay = decay

    def begin(self, layers, steps, seed):
        self._seen = [torch.zeros(layer.width) for layer in layers]
        self._optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)])
        self._remember(steps)
        return self._seen

    def _remember(self, steps):
        self._lock = steps

    def scores(self, now):
        self._seen = [self._decay * seen for seen in self._seen]
        return self._seen


def inside(power):
    class Inside(Rule):
        def scores(self, now):
            return [layer.outgoing().norm(dim=1) ** power for layer in now.layers]

    return Inside()
"""


def through_a_module(layer, stats):
    return mine.helper(stats.energy)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Import a module of one's own, each time as it stands then, with some of its text changed."""

    def imported(old: str = "", new: str = ""):
        assert old in MINE
        file = tmp_path / "mine.py"
        file.write_text(MINE.replace(old, new, 1) if old else MINE, encoding="utf-8")
        linecache.clearcache()
        spec = importlib.util.spec_from_file_location("mine", file)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "mine", module)
        exec(compile(file.read_text(encoding="utf-8"), file, "exec"), vars(module))
        return module

    return imported


ALPHA_CHANGES = ("ALPHA = 1.0", "ALPHA = 2.0")
HELPER_CHANGES = ("return x**ALPHA", "return x + ALPHA")
EDITS = [
    ("by_constant", *ALPHA_CHANGES),
    ("by_helper", *ALPHA_CHANGES),
    ("by_helper", *HELPER_CHANGES),
    ("by_loop", *ALPHA_CHANGES),
    ("by_table", "[1.0, 2.0]", "[1.0, 3.0]"),
    ("by_table", "torch.norm}", "torch.sum}"),
    ("by_lambda", "x**2", "x**3"),
    ("by_net", "NET.weight, 0.5", "NET.weight, 0.25"),
    ("by_object", "Config(2)", "Config(3)"),
    ("by_cached", "x**0.5", "x**0.25"),
    ("by_two", "n == 0 or", "n == 1 or"),
    ("by_two", "n > 0 and", "n > 1 and"),
    ("by_decorated", "return 2 *", "return 3 *"),
    ("Base", "sign = 1", "sign = -1"),
    ("Child", "sign = 1", "sign = -1"),
    ("Child", "self.sign * self.of", "-self.sign * self.of"),
    ("Child", *ALPHA_CHANGES),
    ("Child", *HELPER_CHANGES),
]


class TestCodeOfOnesOwn:
    """`Study` gave old rows after what a function calls, a base class or an option had changed."""

    @staticmethod
    def name(module, what):
        value = getattr(module, what)
        is_rule = isinstance(value, type)
        method = Method("a", value() if is_rule else value, one_shot=not is_rule)
        (cell,) = expand({"model": "tiny-gpt2", "task": "tables", "method": method, "steps": 5})
        return cell.name

    @pytest.mark.parametrize(("what", "old", "new"), EDITS)
    def test_what_it_reads_belongs_to_a_run(self, what, old, new, mine):
        before = self.name(mine(), what)
        assert self.name(mine("IDLE = 1.0", "IDLE = 2.0"), what) == before
        assert self.name(mine(old, new), what) != before

    def test_what_is_set_from_outside_belongs_to_it(self, mine):
        module = mine()
        before = self.name(module, "Child")
        module.Base.sign = 2
        assert self.name(module, "Child") != before
        module.Base.sign = 1
        assert self.name(module, "Child") == before
        module.Child.of = module.helper
        assert self.name(module, "Child") != before

    def test_what_another_module_holds_belongs_to_it(self, mine, monkeypatch):
        module = mine()
        monkeypatch.setitem(globals(), "mine", module)
        before = digest(through_a_module)
        module.IDLE = 2.0
        assert digest(through_a_module) == before
        module.ALPHA = 2.0
        assert digest(through_a_module) != before

    def test_so_do_a_rule_s_private_options(self, mine):
        kind = mine().Decaying
        names = {digest(Method("a", kind(decay))) for decay in (1, -1)}
        assert len(names) == 2
        assert digest(Method("a", kind(1))) in names

    def test_and_not_what_a_run_put_there(self, mine, gpt2):
        rule = mine().Decaying(0.5)
        rule._optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)])
        before = digest(rule)
        gl.Pruner(gpt2, rule, 0.5, 5)
        rule._gumlab_run = 1
        assert digest(rule) == before
        rule._decay = 0.25
        assert digest(rule) != before

    def test_what_a_class_inside_a_function_captures_belongs_to_it(self, mine):
        inside = mine().inside
        assert digest(inside(2)) == digest(inside(2)) != digest(inside(3))

    def test_the_names_are_those_of_another_process(self, mine):
        module = mine()
        named = sorted({what for what, _, _ in EDITS})
        code = f"""
import sys; sys.path[:0] = ["tests", "tests/unit/study", {str(Path(module.__file__).parent)!r}]
from test_identity import *; import mine
print(*(TestCodeOfOnesOwn.name(mine, what) for what in {named}))
"""
        code = [sys.executable, "-c", code]
        root = Path(__file__).parents[3]
        told = subprocess.run(code, capture_output=True, text=True, check=True, cwd=root).stdout
        assert told.split() == [self.name(module, what) for what in named]


# --- what a study reads ---------------------------------------------------------------------------


def write_data(folder: Path, seed: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    for name, count in (("trainset", 20), ("devset", 4), ("testset_w_refs", 4)):
        rows = [f'{e.prompt},"{e.target}"' for e in make_examples(count, seed + count)]
        (folder / f"{name}.csv").write_text("\n".join(["mr,ref", *rows]) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def made(tmp_path):
    """Make a study in one folder, whatever it reads."""
    model = gl.save(tiny("gpt2", n_positions=128), word_tokenizer(), tmp_path / "model")
    write_data(tmp_path / "data")

    def make(data: str = "data", **options) -> Study:
        grid = {"model": str(model), "task": "e2e", **FEW}
        return Study(grid, tmp_path / "runs", data_dir=tmp_path / data, **options)

    return make


def columns(run, cell):
    return {"more": 1}


def other_columns(run, cell):
    return {"more": 2}


def change_examples(folder):
    write_data(folder / "data", seed=7)


def change_weights(folder):
    gl.save(tiny("gpt2", 1, n_positions=128), word_tokenizer(), folder / "model")


def change_tokenizer(folder):
    gl.save(tiny("gpt2", n_positions=128), word_tokenizer(bos=True), folder / "model")


class TestWhatARunIsMadeOf:
    """`Study` hashes no data_dir: another folder of data returns the old rows."""

    def test_another_folder_of_data_is_another_run(self, made, tmp_path):
        write_data(tmp_path / "other", seed=7)
        first = made().run().table()
        second = made("other")
        assert len(second.table()) == 0
        table = second.run().table()
        task = gl.load_task("e2e", tmp_path / "other")
        model, tokenizer = gl.load(tmp_path / "model", device="cpu")
        options = {"keep": 0.5, "steps": 2, "batch_size": 4, "generated": 0, "progress": False}
        alone = gl.study.run(model, tokenizer, task, Method("random", "random"), **options)
        assert table["loss"][0] == alone.row["loss"] != first["loss"][0]
        assert list(made().table()["loss"]) == list(first["loss"])

    def test_the_same_data_elsewhere_is_the_same_run(self, made, tmp_path):
        write_data(tmp_path / "copy")
        (tmp_path / "copy" / "notes.txt").write_text("not read")
        assert made("copy").path(made().cells[0]) == made().path(made().cells[0])

    @pytest.mark.parametrize("change", [change_examples, change_weights, change_tokenizer])
    def test_changed_files_are_another_run_and_noticed_in_between(self, change, made, tmp_path):
        study = made().run()
        change(tmp_path)
        anew = made()
        assert anew.path(anew.cells[0]) != study.path(study.cells[0])
        study.path(study.cells[0]).unlink()
        runs_module._load_task.cache_clear()  # as in a process that comes later
        with pytest.warns(UserWarning, match="1 of 1 runs failed"):
            (row,) = study.run().table().to_dict("records")  # made before the change
        assert "changed since the study was made" in row["error"]
        (row,) = anew.run().table().to_dict("records")
        assert "error" not in row

    def test_so_are_other_columns(self, made):
        paths = [
            made(extra=extra).path(made().cells[0]) for extra in (None, columns, other_columns)
        ]
        assert len(set(paths)) == 3
        assert made(extra=columns).path(made().cells[0]) == paths[1]
        with pytest.raises(gl.GumlabError, match="a lambda would not be known"):
            made(extra=lambda run, cell: {})

    def test_so_is_a_gumlab_that_gives_other_numbers(self, monkeypatch, tmp_path):
        built_in = Study({"model": "tiny-gpt2", "task": "tables", **FEW}, tmp_path)
        cell = built_in.cells[0]
        assert built_in.path(cell).stem == cell.name  # as gumlab 0.1 stored it
        monkeypatch.setattr(runs_module, "BEHAVIOUR", identity.BEHAVIOUR + 1)
        later = Study({"model": "tiny-gpt2", "task": "tables", **FEW}, tmp_path)
        assert later.path(cell).stem.startswith(f"{cell.name}-")

    def test_a_task_of_your_own_by_its_examples(self, tmp_path):
        file = tmp_path / "mine.jsonl"
        paths = []
        for target in ("w5", "w6"):
            rows = [{"prompt": "w4", "target": target}] * 4
            file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
            study = Study({"model": "tiny-gpt2", "task": file, **FEW}, tmp_path / "runs")
            paths.append(study.path(study.cells[0]))
        assert paths[0] != paths[1]

    def test_data_that_cannot_be_read_is_known_before_the_work(self, made, tmp_path):
        with pytest.raises(gl.GumlabError, match="There is no folder"):
            made("nowhere")
        assert not (tmp_path / "runs").exists()

    def test_checkpoints_asked_for_later_are_made(self, made):
        study = made().run()
        assert not study.checkpoint(study.cells[0]).exists()
        later = made(checkpoints=True).run()
        assert (later.checkpoint(later.cells[0]) / "config.json").exists()
        before = later.path(later.cells[0]).stat().st_mtime_ns
        made(checkpoints=True).run()
        assert later.path(later.cells[0]).stat().st_mtime_ns == before


# --- keys of a grid -------------------------------------------------------------------------------


def test_distilled_and_distil_are_one_setting():
    """`distilled: True` was overwritten by the default of `distil`."""
    (by_field,) = expand(GRID | {"distilled": True})
    (by_key,) = expand(GRID | {"distil": True})
    assert by_field.distilled
    assert by_field.name == by_key.name
    with pytest.raises(gl.GumlabError, match="two names of one setting"):
        expand(GRID | {"distilled": True, "distil": False})


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"training": {"lr": 0.1}}, "Unknown setting 'training'"),  # `expand` overwrote it
        ({"name": "gum"}, "Unknown setting 'name'"),
        ({"label": "gum"}, "Unknown setting 'label'"),
        ({"keeep": 0.5}, "Did you mean 'keep'"),
        ({"seeds": [0, 1]}, "Did you mean 'seed'"),
        ({"distill": True}, "Did you mean 'distil' or 'distilled'"),
        ({"learning_rate": 1}, "Unknown setting 'learning_rate'"),
        ({"teacher": "gpt2"}, "A teacher is asked for by distil: True"),
        ({"metric": "rouge"}, "metric is for a task of your own.*tables has its own"),
        ({"metric": "roug"}, "Unknown metric 'roug'. Did you mean 'rouge'"),
        ({"seed": []}, "seed is an empty list"),
        ({"method": {"gum", "random"}}, "method is a set"),
        ({"method": None}, "method must be a name or a gumlab.study.Method; got None"),
        ({"method": rules.Random()}, r'goes into one: Method\("mine", MyRule\(\)\)'),
        ({"seed": -1}, "seed must be a whole number"),
        ({"seed": 0.5}, "seed must be a whole number"),
        ({"steps": "5"}, "steps must be a whole number"),
        ({"steps": -1}, "steps must be a whole number"),
        ({"keep": math.nan}, "keep must be a fraction"),
        ({"split": "tset"}, "Did you mean 'test'"),
        ({"generated": -1}, "generated must be a whole number"),
        ({"distil": "yes"}, "distilled must be True or False"),
        ({"model": 3}, "model must be a name or a path; got 3"),
        ({"steps": 0, "method": "obs", "lr": 0.1}, "lr would change nothing"),
        ({"steps": 0, "method": "obs", "distil": True}, "With steps=0 nothing is distilled"),
        ({"kd_weight": 1.0}, "kd_weight would change nothing"),
        ({"method": "dense", "penalty": 0.3}, "penalty would change nothing"),
        ({"method": "dense", "refit": True}, "refit would change nothing"),
        ({"method": "magnitude", "gram_every": 4}, "gram_every: the rule Magnitude keeps no"),
        ({"method": "obs", "gram_every": 4}, "which cuts once, 'gram_every'"),
        ({"cut_at": 0.5}, "cut_at is for a method that cuts once"),
        ({"widths": [[4, 4]], "widths_of": "gum"}, "both say the widths"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_a_key_is_used_or_refused(more, words):
    with pytest.raises(gl.GumlabError, match=words):
        expand(GRID | more)


def test_a_key_that_some_runs_use_is_left_out_of_the_others():
    grid = GRID | {"distil": [False, True], "kd_weight": 1.0, "method": ["dense", "gum"]}
    grid |= {"seed": np.arange(2)}
    cells = expand(grid)
    assert [(c.method.label, c.distilled, dict(c.training), c.seed) for c in cells] == [
        ("dense", False, {}, 0),
        ("dense", False, {}, 1),
        ("gum", False, {}, 0),
        ("gum", False, {}, 1),
        ("gum", True, {"kd_weight": 1.0}, 0),
        ("gum", True, {"kd_weight": 1.0}, 1),
    ]


@pytest.mark.parametrize("grid", [[], "tiny-gpt2", 3, ["tables"], [{}]])
def test_what_is_no_grid_is_refused(grid):
    with pytest.raises(gl.GumlabError, match=r"grid"):
        expand(grid)


def test_the_options_of_a_grid_reach_a_method_object():
    (cell,) = expand(GRID | {"method": Method("two", "obs", one_shot=True), "cut_at": 0.5})
    assert (cell.method.cut_at, cell.method.options) == (0.5, {})
    assert cell.method.label == "two, cut_at 0.5"


def test_a_table_of_mixed_options_is_saved(tmp_path):
    grid = {**FEW, "model": "tiny-gpt2", "task": "tables", "method": "magnitude", "steps": 0}
    del grid["batch_size"]
    study = Study([grid | {"refit": refit} for refit in (False, True, "bias")], tmp_path)
    for cell, refit in zip(study.cells, (False, True, "bias"), strict=True):
        study.path(cell).write_text(
            json.dumps({"method": "magnitude", "refit": refit, "loss": 1.0})
        )
    import pandas as pd

    assert list(pd.read_parquet(study.save())["refit"]) == ["false", "true", '"bias"']
    with pytest.raises(gl.GumlabError, match="Cannot write to"):
        study.save(tmp_path / "nowhere" / "table.parquet")
    as_csv = pd.read_csv(study.save(tmp_path / "table.csv"))
    assert list(as_csv["loss"]) == [1.0, 1.0, 1.0]
    assert list(as_csv.columns) == list(study.table().columns)
    with pytest.raises(gl.GumlabError, match=r"got 'table.xlsx'. Name it table.parquet"):
        study.save(tmp_path / "table.xlsx")
    assert not (tmp_path / "table.xlsx").exists()


def test_a_cell_of_your_own_is_checked_too():
    cell = {"model": "tiny-gpt2", "task": "tables", "method": Method("gum", "gum"), "keep": 0.5}
    with pytest.raises(gl.GumlabError, match="kd_weight would change nothing"):
        Cell(**cell, seed=0, steps=5, training={"kd_weight": 1.0})
    with pytest.raises(gl.GumlabError, match="goes into one"):
        Cell(**cell | {"method": "gum"}, seed=0, steps=5)


def test_two_methods_of_one_label_are_refused(tmp_path):
    """The table could not tell them apart."""
    grid = {"model": "tiny-gpt2", "task": "tables", "steps": 5}
    two = [Method("mine", "random"), Method("mine", "magnitude")]
    with pytest.raises(gl.GumlabError, match="Two different methods of the grid are called 'mine'"):
        Study(grid | {"method": two}, tmp_path)
    told_by_a_column = [Method("mine", "gum"), Method("mine", "gum", {"penalty": 0.1})]
    assert len(Study(grid | {"method": told_by_a_column}, tmp_path).cells) == 2
    by_task = [grid | {"method": two[0]}, grid | {"method": two[1], "task": "chats"}]
    assert len(Study(by_task, tmp_path).cells) == 2
