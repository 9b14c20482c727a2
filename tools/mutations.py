"""Break the lifecycle on purpose, one line at a time: each breakage must fail the test it names.

    python tools/mutations.py

Works on a copy of the package and its tests in a temporary folder; every named test must first
pass there unbroken. Writes results/mutations.md; exits with 1 where a breakage goes unnoticed, or
where its old text is no longer in its file exactly once. A few minutes: one test at a time.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import traceback
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
NEEDED = ("gumlab", "tests", "tools", "pyproject.toml")
# A test that fails by one of these has met the writing of the breakage, not what it breaks.
WRONG_REASONS = ("ImportError", "ModuleNotFoundError", "NameError", "SyntaxError", "fixture")


class Mutation(NamedTuple):
    """`old` becomes `new` in gumlab/`file`; `test`, a test's id in tests/, must notice."""

    what: str
    file: str
    old: str
    new: str
    test: str


MUTATIONS = (
    Mutation(
        "Top_v keeps one neuron too many",
        "selection.py",
        "stable=True)[:count]] = True",
        "stable=True)[: count + 1]] = True",
        "unit/test_selection.py::test_fixed_widths_take_the_best_of_each_layer",
    ),
    Mutation(
        "ties are broken by keeping more",
        "selection.py",
        "mask[scores.argsort(descending=True, stable=True)[:count]] = True",
        "mask |= scores >= scores.sort(descending=True).values[count - 1]",
        "unit/test_selection.py::test_ties_go_to_the_first_position",
    ),
    Mutation(
        "a global budget is spent layer by layer",
        "selection.py",
        'if scope == "layer":',
        "if scope in SCOPES:",
        "unit/test_selection.py::test_exactly_round_keep_n_neurons_stay[0-global]",
    ),
    Mutation(
        "the schedule is one step late",
        "selection.py",
        "m = 1 - (step / steps - start)",
        "m = 1 - ((step - 1) / steps - start)",
        "unit/test_selection.py::test_the_schedule_by_hand",
    ),
    Mutation(
        "a floor comes on top of the total",
        "selection.py",
        "return apportion(wanted, total, low, sizes, multiple_of)",
        "return apportion(wanted, total + floor, low, sizes, multiple_of)",
        "unit/test_selection.py::test_exactly_round_keep_n_neurons_stay[1-global]",
    ),
    Mutation(
        "Conv1D is read untransposed",
        "feedforward.py",
        "return weight.T if is_conv1d(module) else weight",
        "return weight",
        "unit/test_feedforward.py::test_conv1d_and_linear_show_the_same_neurons",
    ),
    Mutation(
        "the output projection is cut along the wrong axis",
        "feedforward.py",
        "int(not is_conv1d(self.proj)), index)]",
        "int(is_conv1d(self.proj)), index)]",
        "integration/test_invariants.py::test_1_3_4_ties_biases_and_odd_widths_change_nothing"
        "[gpt2-as-wide-as-the-model]",
    ),
    Mutation(
        "the biases of the first neurons stay, not of the kept",
        "feedforward.py",
        "found.append((module.bias, 0, rows))",
        "found.append((module.bias, 0, torch.arange(len(rows))))",
        "unit/test_removal.py::test_the_neurons_that_stay_keep_their_order_and_weights[gpt2]",
    ),
    Mutation(
        "the up projection of a gated block is not cut",
        "feedforward.py",
        "for module in self.fc:\n            parts",
        "for module in self.fc[:1]:\n            parts",
        "integration/test_invariants.py::test_1_masks_from_scores_shrink_to_what_they_gate[llama]",
    ),
    Mutation(
        "of a fused gate and up, up takes the gate's rows",
        "feedforward.py",
        "index + part * self.width",
        "index + 0 * self.width",
        "integration/test_invariants.py::test_1_masks_from_scores_shrink_to_what_they_gate[phi3]",
    ),
    Mutation(
        "padding neurons are copies, not zeros",
        "feedforward.py",
        "taken.index_fill_(axis, padding, 0)",
        "taken.index_fill_(axis, padding, 1)",
        "unit/test_feedforward.py::test_replacements_take_neurons_and_pad_with_zeros[gpt_neo]",
    ),
    Mutation(
        "padding tokens count in the Gram matrix",
        "collecting.py",
        "rows = h.flatten(0, -2)[real.flatten()].float()",
        "rows = h.flatten(0, -2).float()",
        "unit/test_inspection.py::test_the_gram_is_the_stacked_activations[gpt2]",
    ),
    Mutation(
        "padding tokens count in the running Gram sums",
        "collecting.py",
        "real = mask.flatten().nonzero().flatten()",
        "real = (mask >= 0).flatten().nonzero().flatten()",
        "unit/test_gating.py::test_running_grams_are_exactly_the_real_tokens[gpt2]",
    ),
    Mutation(
        "the straight-through gradient has the wrong sign",
        "gating.py",
        "product := h * grad",
        "product := -h * grad",
        "unit/test_gating.py::test_a_gate_passes_the_masked_gradient_to_h",
    ),
    Mutation(
        "removed neurons count in GUM's similarity",
        "scoring.py",
        "kept = inverse * mask",
        "kept = inverse",
        "unit/test_scoring.py::test_mean_similarity_is_the_double_loop",
    ),
    Mutation(
        "OBS leaves out how unique a neuron is",
        "scoring.py",
        "(squared_norm(layer) * unrebuilt(found.gram, ridge)).float()",
        "(squared_norm(layer) * found.energy).float()",
        "unit/test_collecting.py::test_obs_is_the_error_of_deleting_and_refitting[gpt2]",
    ),
    Mutation(
        "of two twins the higher-scored goes",
        "selection.py",
        "rank[partner] < rank[one]",
        "rank[partner] > rank[one]",
        "integration/test_twin_filter.py::test_of_two_twins_the_higher_stays_and_of_equal_ones_the_first",
    ),
    Mutation(
        "the refit has no ridge",
        "gram.py",
        "add_(ridge * (energy.sum()",
        "add_(0 * ridge * (energy.sum()",
        "unit/test_collecting.py::test_the_ridge_is_of_the_neurons_that_fire",
    ),
    Mutation(
        "the refit takes the removed neurons for the kept",
        "removal.py",
        "found.gram[mask][:, ~mask].double() @ removed",
        "found.gram[mask][:, mask].double() @ layer.outgoing()[mask].double()",
        "unit/test_collecting.py::test_the_refit_is_least_squares[True]",
    ),
    Mutation(
        "tied weights come apart in the copy",
        "removal.py",
        "    remove_gates(small)\n    for layer",
        "    remove_gates(small)\n"
        "    small.set_output_embeddings(copy.deepcopy(small.get_output_embeddings()))\n"
        "    for layer",
        "unit/test_removal.py::test_the_copy_shares_no_storage",
    ),
    Mutation(
        "the prompt is learned too",
        "tasks/batches.py",
        "labels[i, start:end] = input_ids[i, start:end]",
        "labels[i, :end] = input_ids[i, :end]",
        "unit/tasks/test_batches.py::test_only_the_target_and_the_end_of_text_are_labelled",
    ),
)


def mutated(one: Mutation, root: Path = ROOT) -> str:
    """The broken text of the mutation's file; ValueError where its old text is not there once."""
    text = (root / "gumlab" / one.file).read_text(encoding="utf-8")
    if text.count(one.old) != 1:
        times = text.count(one.old)
        raise ValueError(f"gumlab/{one.file} holds {one.old!r} {times} times, expected once")
    return text.replace(one.old, one.new)


def outcomes(folder: Path, tests: Sequence[str]) -> dict[str, str]:
    """By test: "" where it passed, else the first line of why not. One pytest, in the copy."""
    report = folder / "report.xml"
    report.unlink(missing_ok=True)
    child = os.fork()  # gumlab is imported afresh, and what it stands on is here already
    if not child:
        code = 1
        try:
            os.chdir(folder)
            sys.path.insert(0, str(folder))
            sys.stdout = sys.stderr = open("log.txt", "w", encoding="utf-8")  # noqa: SIM115
            options = ["-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
            options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # for what is here
            code = pytest.main(options + [f"tests/{test}" for test in tests])
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(code)
    os.waitpid(child, 0)
    found = {}
    for case in ElementTree.parse(report).iter("testcase") if report.exists() else ():
        file = case.get("classname").removeprefix("tests.").replace(".", "/")
        name = f"{file}.py::{case.get('name')}"
        trouble = [part for part in case if part.tag in ("failure", "error", "skipped")]
        lines = [part.get("message", "").splitlines() or [part.tag] for part in trouble]
        found[name] = f"{trouble[0].tag}: {lines[0][0]}" if trouble else ""
    log = (folder / "log.txt").read_text(encoding="utf-8")[-600:]
    return {test: found.get(test, f"not run: {log}") for test in tests}


def caught(outcome: str) -> bool:
    """Whether a test failed, and by what it tests."""
    return outcome.startswith("failure") and not any(w in outcome for w in WRONG_REASONS)


def main() -> int:
    import torch  # noqa: F401, for all the children
    from transformers import GPT2LMHeadModel, LlamaForCausalLM  # noqa: F401

    sys.dont_write_bytecode = True  # a breakage may be as old as what it breaks
    rows, survived = [], 0
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        for part in NEEDED:
            take = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            take(ROOT / part, copy / part)
        whole = outcomes(copy, list(dict.fromkeys(one.test for one in MUTATIONS)))
        if failed := {test: why for test, why in whole.items() if why}:
            print(f"These do not pass unbroken: {failed}")
            return 1
        for one in MUTATIONS:
            path = copy / "gumlab" / one.file
            before = path.read_text(encoding="utf-8")
            path.write_text(mutated(one), encoding="utf-8")
            outcome = outcomes(copy, [one.test])[one.test]
            path.write_text(before, encoding="utf-8")
            survived += not caught(outcome)
            told = "caught" if caught(outcome) else f"SURVIVED ({outcome or 'passed'})"
            print(f"{told}: {one.what}. {outcome[:120]}", flush=True)
            where = f"`gumlab/{one.file}`"
            rows.append({"breakage": one.what, "where": where, "caught by": f"`{one.test}`"})
            if not caught(outcome):
                rows[-1]["caught by"] = f"**not caught** by `{one.test}`"
    sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
    from harness import made_by, markdown

    head = f"# Breakages that the tests notice\n\n{made_by('python tools/mutations.py')} "
    head += f"{len(rows) - survived} of {len(rows)} caught, each by one test that passes unbroken."
    (ROOT / "results" / "mutations.md").write_text(f"{head}\n\n{markdown(rows)}", encoding="utf-8")
    return int(survived > 0)


if __name__ == "__main__":
    sys.exit(main())
