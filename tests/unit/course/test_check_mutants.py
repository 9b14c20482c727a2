"""Every exercise's cases tell its solution from its near misses.

The near misses are made here: each printed solution with one operator, constant or call changed.
A mutant that a check lets pass must answer as the solution does on other inputs of the same kind.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from helpers.exercises import EXERCISES, NOTEBOOKS, defined, right, solutions
from torch import Tensor

from gumlab.course.check.comparison import same
from gumlab.course.check.trial import Raised, tried

OPEN = {"my_score", "my_variant"}  # any answer of the right form is right
SOLUTIONS = {
    name: code for path in NOTEBOOKS for name, code in solutions(path).items() if name not in OPEN
}
SWAPPED = {
    ast.GtE: ast.Gt,
    ast.Gt: ast.GtE,
    ast.LtE: ast.Lt,
    ast.Lt: ast.LtE,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
DROPPED = {"abs", "sqrt", "float", "clamp", "clamp_min", "mean", "sum", "log", "exp", "norm"}
OTHER = {"round": "int", "min": "max", "max": "min", "any": "all", "all": "any"}


def replacements(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in the place of a piece of code, each a plausible slip."""
    if isinstance(node, ast.BinOp) and type(node.op) in SWAPPED:
        yield ast.BinOp(node.left, SWAPPED[type(node.op)](), node.right)
    if isinstance(node, ast.BoolOp):
        yield ast.BoolOp(SWAPPED[type(node.op)](), node.values)
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPPED:
        yield ast.Compare(node.left, [SWAPPED[type(node.ops[0])]()], node.comparators)
    if isinstance(node, ast.UnaryOp):
        yield node.operand
    if isinstance(node, ast.Constant):
        yield from other_constants(node.value)
    if isinstance(node, ast.Call):
        yield from other_calls(node)
    yield from other_order(node)


def other_order(node: ast.AST) -> Iterator[ast.AST]:
    """Dimensions or results in the other order, an index that is forgotten, a call not made."""
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
        yield node.value
        if isinstance(node.slice, ast.Tuple):
            order = ast.Tuple(node.slice.elts[::-1], ast.Load())
            yield ast.Subscript(node.value, order, ast.Load())
    if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
        yield ast.Return(ast.Tuple(node.value.elts[::-1], ast.Load()))
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield ast.Pass()


def other_constants(value: object) -> Iterator[ast.AST]:
    """A constant's neighbours."""
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield ast.Constant(value + 1)
        yield ast.Constant(value - 1)
    elif isinstance(value, float):
        yield ast.Constant(value + 0.1)


def other_calls(node: ast.Call) -> Iterator[ast.AST]:
    """A call that is left out, has another name, or lacks an argument."""
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in DROPPED:
        is_method = isinstance(node.func, ast.Attribute) and not (
            isinstance(node.func.value, ast.Name) and node.func.value.id in ("torch", "math")
        )
        if is_method:
            yield node.func.value
        elif node.args:
            yield node.args[0]
    if isinstance(node.func, ast.Name) and name in OTHER:
        yield ast.Call(ast.Name(OTHER[name], ast.Load()), node.args, node.keywords)
    for place in range(len(node.keywords)):
        keywords = node.keywords[:place] + node.keywords[place + 1 :]
        yield ast.Call(node.func, node.args, keywords)


class Replacing(ast.NodeTransformer):
    """Puts a piece of code into the place of another."""

    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old = old
        self.new = new

    def visit(self, node: ast.AST) -> ast.AST:
        """The new piece for the old one; all else stays."""
        if node is self.old:
            return ast.copy_location(self.new, node)
        return super().generic_visit(node)


def mutants(code: str) -> Iterator[str]:
    """The code with one slip each."""
    tree = ast.parse(code)
    count = sum(1 for _ in ast.walk(tree))
    for place in range(count):
        which = 0
        while True:
            changed = copy.deepcopy(tree)
            node = list(ast.walk(changed))[place]
            slips = list(replacements(node))
            if which >= len(slips):
                break
            yield ast.unparse(
                ast.fix_missing_locations(Replacing(node, slips[which]).visit(changed))
            )
            which += 1


def like(value: object, generator: torch.Generator) -> object:
    """Another argument of the same kind: shapes, signs and symmetries stay."""
    if isinstance(value, list | tuple):
        return type(value)(like(part, generator) for part in value)
    if isinstance(value, float):
        factor = float(torch.rand((), generator=generator))
        return 0.05 + 0.9 * factor if 0 <= value <= 1 else value * (0.5 + factor)
    if isinstance(value, Tensor) and value.dtype == torch.bool:
        mask = torch.rand(value.shape, generator=generator) < 0.5
        mask.view(-1)[0], mask.view(-1)[-1] = True, False
        return mask
    if isinstance(value, Tensor) and value.is_floating_point():
        return tensor_like(value, generator)
    return value


def tensor_like(value: Tensor, generator: torch.Generator) -> Tensor:
    """Another float tensor of the same kind; numbers may repeat, as in a tie."""
    numbers = torch.randn(value.shape, generator=generator, dtype=value.dtype)
    is_square = value.ndim == 2 and value.shape[0] == value.shape[1]
    if is_square and torch.allclose(value, value.T):
        gram = numbers.T @ numbers
        if (value.diagonal() == 1).all():
            length = gram.diagonal().sqrt()
            gram = gram / length[:, None] / length
        return gram
    if value.unique().numel() < value.numel():
        numbers = numbers.mul(2).round() / 2
    return numbers.abs() if (value >= 0).all() else numbers


def others(case: tuple, count: int = 10) -> Iterator[tuple]:
    """Random cases of the same kind as a given one."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        yield tuple(like(argument, generator) for argument in case)


def differs(exercise, mutant: Callable) -> tuple | None:
    """An input on which a mutant answers otherwise than the reference, or None."""
    reference = right(exercise)
    for case in exercise.cases:
        for other in others(case):
            wanted = tried(exercise.run, reference, other).answer
            if isinstance(wanted, Raised):
                continue
            if not same(tried(exercise.run, mutant, other).answer, wanted):
                return other
    return None


@pytest.mark.slow
@pytest.mark.parametrize("name", SOLUTIONS)
def test_no_near_miss_of_the_solution_passes(name):
    exercise = EXERCISES[name]
    survivors = []
    tried_out = 0
    for code in mutants(SOLUTIONS[name]):
        try:
            mutant = defined(code, name)
        except Exception:  # it cannot even be defined
            continue
        tried_out += 1
        if exercise.passes(mutant) and (case := differs(exercise, mutant)) is not None:
            survivors.append((code, case))
    assert tried_out
    assert not survivors, "\n\n".join(f"{code}\ndiffers for {case}" for code, case in survivors)


FEW_HINTS = {"at_widths_of", "cosine_of", "with_floor"}  # it should get shorter


@pytest.mark.parametrize("name", EXERCISES)
def test_four_wrong_answers_have_names_and_differ_from_the_right_one(name):
    exercise = EXERCISES[name]
    assert len(exercise.hints) >= 4 or name in FEW_HINTS
    for _, wrong in exercise.hints:
        assert not exercise.passes(wrong)
