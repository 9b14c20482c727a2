"""Whatever the configuration, the design's invariants 1 to 4 hold, or a GumlabError says why not.

Nothing is filtered: every drawn example ends in one of the two, the ends are counted, and what is
asked for must be impossible where a GumlabError ends it.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.models import ARCHITECTURES, logits_of, permuted, tiny
from helpers.texts import make_examples, one_batch, word_tokenizer
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

import gumlab as gl
from gumlab.feedforward import by_output, is_conv1d, neurons, width_field
from gumlab.pruner import METHODS
from gumlab.rules import options_of
from gumlab.scoring import SCORES

TOKENIZER, EXAMPLES = word_tokenizer(), make_examples(12)
# how far logits may be apart, as a share of their size: roundings of 10 to 20 sums, by precision
TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-4, torch.float16: 2**-7, torch.bfloat16: 2**-4}
DRAWN = settings(
    derandomize=True,
    deadline=None,
    print_blob=False,
    phases=[Phase.generate],  # each example is small as it is
    suppress_health_check=[HealthCheck.too_slow],
)
pytestmark = pytest.mark.filterwarnings("ignore:(Top_v would|Soft movement keeps):UserWarning")


@dataclass(frozen=True)
class Shape:
    """A random model: its architecture and size; each layer has a width of its own."""

    name: str
    size_d: int
    widths: tuple[int, int]
    bias: bool
    tied: bool
    dtype: torch.dtype

    def build(self, dtype: torch.dtype | None = None) -> nn.Module:
        config: dict[str, Any] = {"tie_word_embeddings": self.tied}
        config["n_embd" if self.name in ("gpt2", "gptj") else "hidden_size"] = self.size_d
        if self.name == "opt":
            config |= {"word_embed_proj_dim": self.size_d, "enable_bias": self.bias}
        elif self.name == "llama":
            config["mlp_bias"] = self.bias
        widest = max(self.widths)
        field = {"gpt2": "n_inner", "gptj": "n_inner", "opt": "ffn_dim"}.get(self.name)
        config[field or "intermediate_size"] = widest
        model = tiny(self.name, dtype=dtype or self.dtype, **config)
        for module in model.modules():
            if hasattr(module, "scalar_embed_scale"):  # Gemma's: loaded, it has the model's dtype
                module.embed_scale = torch.tensor(module.scalar_embed_scale, dtype=model.dtype)
        assert [layer.width for layer in neurons(model)] == [widest, widest]
        return gl.shrink(model, [torch.arange(widest) < width for width in self.widths])


def shapes(*dtypes: torch.dtype) -> st.SearchStrategy[Shape]:
    return st.builds(
        Shape,
        st.sampled_from(ARCHITECTURES),
        st.sampled_from([16, 32]),
        st.tuples(st.integers(1, 48), st.integers(1, 48)),
        st.booleans(),
        st.booleans(),
        st.sampled_from(dtypes),
    )


ASKED = st.fixed_dictionaries(
    {"keep": st.floats(0.05, 1), "scope": st.sampled_from(["layer", "global"])},
    optional={"floor": st.integers(0, 6), "multiple_of": st.integers(1, 12)},
)


def possible(sizes: tuple[int, ...], asked: dict[str, Any]) -> bool:
    """Whether any widths meet what is asked for: the smallest that floor and multiples allow."""
    floor, unit = asked.get("floor", 1), asked.get("multiple_of", 1)
    allowed = [[w for w in range(1, n + 1) if w % unit == 0 or w == n] for n in sizes]
    least = [[w for w in ws if w >= floor] for ws in allowed]
    if not all(least):
        return False
    return round(asked["keep"] * sum(sizes)) >= sum(map(min, least))


def budget_is_met(masks: list[torch.Tensor], asked: dict[str, Any]) -> None:
    floor, unit = asked.get("floor", 1), asked.get("multiple_of", 1)
    widths, sizes = [int(m.sum()) for m in masks], [len(m) for m in masks]
    assert all(w >= max(1, floor) for w in widths)
    assert all(w % unit == 0 or w == n for w, n in zip(widths, sizes, strict=True))
    assert abs(sum(widths) - round(asked["keep"] * sum(sizes))) < unit


def close(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float) -> None:
    size = float(theirs.abs().max())
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance * size)


def gated_equals_shrunk(model: nn.Module, masks: list[torch.Tensor], shape: Shape) -> nn.Module:
    """Invariant 1; the shrunk model."""
    batch, small = one_batch(model, TOKENIZER, EXAMPLES), gl.shrink(model, masks)
    with gl.gate(model, masks):
        gated = logits_of(model, batch)
    assert gated.isfinite().all()
    close(logits_of(small, batch), gated, TOLERANCE[shape.dtype])
    assert [layer.width for layer in neurons(small)] == [int(m.sum()) for m in masks]
    return small


def other_storage(model: nn.Module, shape: Shape) -> nn.Module:
    """The same model with every Linear of its blocks a Conv1D, and every Conv1D a Linear."""
    twin = shape.build(next(model.parameters()).dtype)
    for layer in neurons(twin):
        block = twin.get_submodule(layer.name)
        for name, old in list(block.named_children()):
            if not any(old is module for module in (*layer.fc, layer.proj)):
                continue
            size_out, size_in = by_output(old).shape
            new = nn.Linear(size_in, size_out) if is_conv1d(old) else Conv1D(size_out, size_in)
            new.weight = nn.Parameter(old.weight.detach().T.contiguous())
            bias = torch.zeros(size_out) if old.bias is None else old.bias.detach()
            new.bias = nn.Parameter(bias.to(old.weight.dtype))
            setattr(block, name, new)
    return twin.eval()


def alike(ours: list[torch.Tensor], theirs: list[torch.Tensor], asked: dict[str, Any]) -> bool:
    """Same scores, and the same neurons stay; False where ties leave it open which of them do."""
    apart = max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))
    assert apart <= 5e-3 * max(float(s.abs().max()) for s in ours)
    one, other = (gl.select(scores, **asked) for scores in (ours, theirs))
    for a, b, mask, twin in zip(ours, theirs, one, other, strict=True):
        left, right = a[mask].sort().values, b[twin].sort().values
        if asked["scope"] == "layer":
            torch.testing.assert_close(left, right, rtol=0, atol=3 * apart)
    same = all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert same or float(torch.cat(ours).sort().values.diff().min()) <= 2 * apart
    return same


def same_from_its_twins(shape: Shape, method: str, asked: dict[str, Any]) -> bool:
    """Invariants 2 and 3, in float64; False where ties leave it open who stays."""
    model = shape.build(torch.float64)
    batch = one_batch(model, TOKENIZER, EXAMPLES)
    scores = gl.score(model, method, TOKENIZER, EXAMPLES)
    twin = other_storage(model, shape)
    same = alike(scores, gl.score(twin, method, TOKENIZER, EXAMPLES), asked)
    masks = gl.select(scores, **asked)
    ours, theirs = (logits_of(gl.shrink(m, masks), batch) for m in (model, twin))
    close(theirs, ours, TOLERANCE[torch.float64])
    if method != "random":  # which is drawn by position
        orders = [torch.randperm(width) for width in shape.widths]
        twin = permuted(model, orders)
        close(logits_of(twin, batch), logits_of(model, batch), TOLERANCE[torch.float64])
        found = gl.score(twin, method, TOKENIZER, EXAMPLES)
        back = [s[order.argsort()] for s, order in zip(found, orders, strict=True)]
        same &= alike(scores, back, asked)
    return same


def unless_refused(make: Callable[[], Any], can: bool) -> Any:
    """What `make` returns; None for a GumlabError, raised where it cannot be, and only there."""
    made = error = None
    try:
        made = make()
    except gl.GumlabError as caught:
        error = str(caught)
    assert (error is None) == can, error
    assert error is None or (error.endswith(".") and len(error.split()) > 8)
    return made


def test_scored_selected_and_shrunk():
    """Invariants 1, 2 and 3, with every score."""
    ends: Counter = Counter()

    @settings(DRAWN, max_examples=60)
    @given(shapes(*TOLERANCE), st.sampled_from(SCORES), ASKED)
    def holds(shape, method, asked):
        model = shape.build()
        scores = gl.score(model, method, TOKENIZER, EXAMPLES)
        can = possible(shape.widths, asked)
        masks = unless_refused(lambda: gl.select(scores, **asked), can)
        if masks is None:
            ends["refused"] += 1
            return
        budget_is_met(masks, asked)
        gated_equals_shrunk(model, masks, shape)
        same = same_from_its_twins(shape, method, asked)
        ends["held" if same else "held but for ties"] += 1

    holds()
    assert ends["held"] > 2 * ends["refused"] > 0, ends
    assert ends["held"] > 4 * ends["held but for ties"], ends


PRUNERS = st.fixed_dictionaries(
    {"method": st.sampled_from(METHODS), "steps": st.integers(1, 4)},
    optional={
        "gradient": st.sampled_from(["gate", "neuron"]),
        "twin_filter": st.sampled_from([0.5, 0.8]),
        "lambda_gum": st.sampled_from([0.0, 1.0]),
        "end": st.floats(0.2, 1),
        "freeze": st.booleans(),
    },
)
STRAY = st.sampled_from([False, False, False, False, False, True])


def others_options(options: dict[str, Any]) -> set[str]:
    """Those that belong to another method than the drawn one."""
    return {"gradient", "lambda_gum"} & options.keys() - set(options_of(options["method"]))


def test_pruned_in_training_and_saved():
    """Invariants 1 and 4, with every method that prunes on the way."""
    ends: Counter = Counter()
    trained = [t for t in TOLERANCE if t != torch.float16]  # in which Adam's epsilon is 0

    @settings(DRAWN, max_examples=40)
    @given(shapes(*trained), PRUNERS, STRAY, ASKED)
    def holds(shape, options, stray, asked):
        model, soft = shape.build(), options["method"] == "soft_movement"
        taken = {k: v for k, v in asked.items() if not soft or k in ("keep", "floor")}
        others = others_options(options)
        if not stray:  # an option of another method is given now and then
            options = {name: value for name, value in options.items() if name not in others}
        refused = bool(stray and others) or (soft and "twin_filter" in options)
        can = possible(shape.widths, taken) and not refused
        pruner = unless_refused(lambda: gl.Pruner(model, **options, **taken), can)
        if pruner is None:
            ends["refused"] += 1
            return
        run = {"steps": options["steps"], "batch_size": 4, "progress": False}
        gl.train(model, TOKENIZER, EXAMPLES, pruner=pruner, **run)
        if not soft:
            budget_is_met(pruner.masks, taken)
        pruner.remove()
        saved_and_loaded(gated_equals_shrunk(model, pruner.masks, shape), shape)
        ends["held"] += 1

    holds()
    assert ends["held"] > ends["refused"] > 0, ends


def saved_and_loaded(small: nn.Module, shape: Shape) -> None:
    """Invariant 4: as it is by gumlab, and padded by transformers alone."""
    batch = one_batch(small, TOKENIZER, EXAMPLES)
    before = logits_of(small, batch)
    with tempfile.TemporaryDirectory() as folder:
        gl.save(small, TOKENIZER, Path(folder) / "as it is")
        loaded, _ = gl.load(Path(folder) / "as it is", device="cpu", dtype="auto")
        assert {p.dtype for p in loaded.parameters()} == {shape.dtype}
        assert torch.equal(logits_of(loaded, batch), before)
        padded = gl.save(small, TOKENIZER, Path(folder) / "padded", pad=True)
        plain = AutoModelForCausalLM.from_pretrained(padded, dtype="auto").eval()
        close(logits_of(plain, batch), before, TOLERANCE[shape.dtype])
        widest = max(layer.width for layer in neurons(small))
        assert getattr(plain.config, width_field(plain)) == widest
