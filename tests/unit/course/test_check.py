"""Exercise checks: the reference passes, every known mistake gets its own hint, nothing stops."""

from __future__ import annotations

import pytest
import torch
from helpers.exercises import EXERCISES, MISTAKES, NOTEBOOKS, checked, defined, right, solutions

from gumlab.course import check


@pytest.mark.parametrize("name", EXERCISES)
def test_the_reference_is_right_and_bears_the_exercises_name(name, capsys):
    exercise = EXERCISES[name]
    assert exercise.name == name

    same = right(exercise)
    assert exercise(same) is same
    assert capsys.readouterr().out == f"{name}: ok\n"


def test_a_check_that_runs_twice_does_not_praise_its_own_reference(capsys):
    exercise = EXERCISES["kept_count"]
    given = exercise(lambda *case: 0)
    assert exercise(given) is exercise.reference
    assert "ok" not in capsys.readouterr().out


@pytest.mark.parametrize(("exercise", "hint", "wrong"), MISTAKES)
def test_each_known_mistake_gets_its_own_hint(exercise, hint, wrong, capsys):
    assert exercise(wrong) is exercise.reference
    out = capsys.readouterr().out
    assert out.startswith(f"{exercise.name}: not yet. {hint} ")
    assert "Going on with the reference" in out
    assert out.count("\n") == 1


@pytest.mark.parametrize("name", EXERCISES)
def test_a_stub_is_not_attempted(name, capsys):
    def stub(*args):
        raise NotImplementedError

    assert EXERCISES[name](stub) is EXERCISES[name].reference
    assert capsys.readouterr().out == f"{name}: not attempted. Going on with the reference.\n"


@pytest.mark.parametrize("name", EXERCISES)
@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (lambda *args: None, "None"),
        (lambda *args: {}["missing"], "KeyError: 'missing'."),
        (lambda: 1, "TypeError:"),
        (lambda *args: "text", "yours gives 'text'"),
        ("not a function", "TypeError: 'str' object is not callable"),
    ],
)
def test_any_other_failure_is_one_line_and_goes_on(name, attempt, said, capsys):
    assert EXERCISES[name](attempt) is EXERCISES[name].reference
    out = capsys.readouterr().out
    assert said in out
    assert out.count("\n") == 1


def test_none_asks_for_return_unless_it_may_be_an_answer(capsys):
    check.kept_count(lambda keep, widths: None)
    assert "returned None; does it end with `return`? kept_count(" in capsys.readouterr().out
    check.block_kind(lambda d, shapes: None)
    assert "should give 'plain', yours gives None" in capsys.readouterr().out


def test_a_crash_names_the_line(capsys):
    def kept_count(keep, widths):
        total = sum(widths)
        return total / 0

    check.kept_count(kept_count)
    line = kept_count.__code__.co_firstlineno + 2
    assert f"in line {line} of the cell: ZeroDivisionError" in capsys.readouterr().out


def test_an_unknown_mistake_shows_the_first_case_that_differs(capsys):
    check.kept_count(lambda keep, widths: 4 if widths == [4, 4, 4] else round(keep * sum(widths)))
    assert "kept_count(0.4, [4, 4, 4]) should give 5, yours gives 4." in capsys.readouterr().out
    check.top_v(lambda s, keep: torch.ones_like(s, dtype=torch.bool))
    assert "should give [True, True, False, False]" not in capsys.readouterr().out

    def nothing(score, u, lambda_gum, layers):
        return torch.zeros_like(score)

    assert check.gum_gradient(nothing) is not nothing
    assert "not yet" in capsys.readouterr().out


def test_numbers_that_look_right_are_compared_by_kind(capsys):
    check.kept_count(lambda keep, widths: float(round(keep * sum(widths))))
    assert "should give 512, yours gives 512.0" in capsys.readouterr().out
    check.top_v(lambda s, keep: check.top_v.reference(s, keep).float())
    assert "not yet" in capsys.readouterr().out


def test_a_function_that_changes_its_arguments_is_told_and_spoils_nothing(capsys):
    def top_v(scores, keep):
        mask = right(check.top_v)(scores, keep)
        scores.zero_()
        return mask

    check.top_v(top_v)
    said = "changes its input `scores` in top_v(torch.tensor([0.1, 0.9, 0.3, 0.7]), 0.5);"
    assert said in capsys.readouterr().out
    assert check.top_v(right(check.top_v)) is not check.top_v.reference  # the cases are whole


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_every_exercise_of_a_notebook_has_a_folded_solution_that_passes(path, capsys):
    printed = solutions(path)
    assert set(printed) == checked(path)
    for name, code in printed.items():
        solution = defined(code, name)
        assert EXERCISES[name](solution) is solution, capsys.readouterr().out


def test_a_claim_that_no_longer_holds_says_so_and_stops_nothing(capsys):
    check.claims({"one is two": 1 == 2, "two is two": True})
    said = ["no longer holds with your settings: one is two", "holds: two is two"]
    assert capsys.readouterr().out.splitlines() == said
