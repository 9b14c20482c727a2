"""What a pruning step costs beside a dense step, results/step.md, and what GUM's sampling loses,
results/ranks.md.

    python benchmarks/speed/step.py [--only times] [--device cuda]

One process, a model with random weights, random tokens, AdamW. On a CPU two layers of GPT-2-small's
shapes (vocabulary 1,024) and 8 steps of 8 x 128 tokens in a turn, which hold one refresh of GUM's
similarity; on a GPU GPT-2-small and GPT-2-medium in the precision of `gumlab.train`, 16 steps of
8 x 512. The methods take turns in the middle of the schedule, where every method does all its work;
each round begins with the next one. A ratio is taken within a round; the table gives the median
over the rounds and the quartiles. glibc is told to keep the memory that is freed: else the page
faults of its return, which come and go with what the heap looks like, blur the ratios by one or two
hundredths.

Rank agreement (`--only ranks`), on a CPU alone: Spearman's correlation of GUM's running mean
|cosine| with the exact one, taken from 1,024 training examples, in every layer of tiny-gpt-neo on
restaurants at every tenth of a run, until the masks freeze.
"""

from __future__ import annotations

import ctypes
import statistics
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import harness
import pandas as pd
import torch

import gumlab as gl
from gumlab.collecting import RunningGrams, RunningLikeness
from gumlab.gating import Gate
from gumlab.scoring import mean_similarity
from gumlab.study.intervals import rank_correlation
from gumlab.training import in_precision

Sampling = dict[str, Any]


def sampling(every: int, tokens: float, memory: float, drawn: int | None = None) -> Sampling:
    """How GUM's similarity is sampled, as `Pruner` takes it."""
    found: Sampling = {"gram_every": every, "gram_tokens": tokens, "gram_memory": memory}
    return found if drawn is None else {**found, "gram_neurons": drawn}


USUAL = {
    "random": ("random", {}),
    "magnitude": ("magnitude", {}),
    "movement, local": ("movement", {}),
    "movement, global": ("movement", {"scope": "global"}),
    "movement, global, gate": ("movement", {"scope": "global", "gradient": "gate"}),
    "soft movement": ("soft_movement", {}),
    "GUM": ("gum", {}),
    "GUM, gate": ("gum", {"gradient": "gate"}),
}
EXACT = "GUM, every step, all tokens, memory 0.8"
SAMPLED = {
    "GUM, every step, 1/4 of the tokens, memory 0.8, 64 drawn neurons": sampling(1, 1 / 4, 0.8, 64),
    "GUM, every step, 1/4 of the tokens, memory 0.8, 32 drawn neurons": sampling(1, 1 / 4, 0.8, 32),
    "GUM, every 2 steps, 1/8 of the tokens, memory 0.8": sampling(2, 1 / 8, 0.8),
    "GUM, every step, 1/16 of the tokens, memory 0.8": sampling(1, 1 / 16, 0.8),
    "GUM, every step, 1/8 of the tokens, memory 0.8": sampling(1, 1 / 8, 0.8),
    "GUM, every step, 1/4 of the tokens, memory 0.8": sampling(1, 1 / 4, 0.8),
    EXACT: sampling(1, 1.0, 0.8),
    "GUM, every step, all tokens, memory 0.001 (reference code)": sampling(1, 1.0, 0.001),
}
SETTINGS_OF_GUM = {"GUM": sampling(8, 1 / 4, 0.8), **SAMPLED}  # the first is the default
CONTENDERS = USUAL | {label: ("gum", settings) for label, settings in SAMPLED.items()}


@dataclass(frozen=True)
class Setting:
    """A model's shape, and the steps of a turn: how many, and of how many random tokens."""

    shape: harness.Shape
    batch: int = 8
    tokens: int = 128
    steps: int = 8


SETTINGS = {
    "cpu": [Setting(harness.Shape("GPT-2-small layers"))],
    "cuda": [
        Setting(harness.SMALL, tokens=512, steps=16),
        Setting(harness.MEDIUM, tokens=512, steps=16),
    ],
}
QUICK = [Setting(harness.TOY, 2, 16)]


def keep_freed_memory() -> None:
    """Tell glibc, where there is one, to keep it for the next allocation."""
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        for option in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            libc.mallopt(option, 1 << 30)


def step_times(setting: Setting, labels: list[str], rounds: int, device: str) -> pd.DataFrame:
    """Seconds of one step, dense and of each contender (columns), in each round (rows)."""
    model = (
        harness.random_gpt2(setting.shape, setting.tokens, **harness.without_dropout())
        .to(device)
        .train()
    )
    fused = True if device == "cuda" else None
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=fused)
    ids = torch.randint(0, setting.shape.vocabulary, (setting.batch, setting.tokens)).to(device)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}

    def steps(pruner: gl.Pruner | None) -> None:
        for _ in range(setting.steps):
            with in_precision(model, None):
                loss = model(**batch).loss
            loss.backward()
            if pruner is not None:
                pruner.step(optimizer)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def turn(label: str, _: int) -> float:
        if label == "dense":
            return harness.seconds(lambda: steps(None), device) / setting.steps
        method, settings = CONTENDERS[label]
        pruner = gl.Pruner(model, method, 0.25, 1000, **settings)
        pruner.step_count = 400  # the middle of the schedule
        spent = harness.seconds(lambda: steps(pruner), device)
        pruner.remove()
        return spent / setting.steps

    times = harness.in_turns(["dense", *labels], rounds + 1, turn)
    return pd.DataFrame(times).iloc[1:]  # the first round warms up


class Tap:
    """A layer's gate for one of several running sums: its mask, and a `watch` of its own."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.watch = None

    @property
    def mask(self) -> torch.Tensor:
        return self.gate.mask


def running_sum(model: Any, taps: list[Tap], settings: Sampling) -> RunningGrams:
    """The sums of one setting."""
    usual = [settings[name] for name in ("gram_every", "gram_tokens", "gram_memory")]
    if "gram_neurons" in settings:
        return RunningLikeness(model, taps, *usual, 0, settings["gram_neurons"])
    return RunningGrams(model, taps, *usual)


def running_sums(model: Any, gates: list[Gate]) -> dict[str, RunningGrams]:
    """The Gram sums of GUM in each setting, all of one model that trains."""
    taps = {label: [Tap(gate) for gate in gates] for label in SETTINGS_OF_GUM}
    sums = {
        label: running_sum(model, taps[label], settings)
        for label, settings in SETTINGS_OF_GUM.items()
    }

    def before_proj(i: int, proj: Any, inputs: tuple) -> None:
        if proj.training:
            for of_setting in taps.values():
                of_setting[i].watch(inputs[0].detach())

    for i, layer in enumerate(gl.neurons(model)):
        layer.proj.register_forward_pre_hook(partial(before_proj, i), prepend=True)
    return sums


def likeness_of(grams: RunningGrams, i: int, mask: torch.Tensor) -> torch.Tensor:
    """u of layer i's neurons, (N,)."""
    if isinstance(grams, RunningLikeness):
        return grams.likeness(i)
    return mean_similarity(grams.sums[i], mask)


class Enough(Exception):
    """The masks are frozen: nothing more to compare."""


def rank_agreement(steps: int, examples: int = 1024) -> dict[str, list[float]]:
    """Spearman per layer and tenth of a run of each setting's similarity with the exact one.

    All along one run, of the default setting: the same weights and masks for all of them. examples:
    how many the exact one is taken from.
    """
    model, tokenizer = gl.load("tiny-gpt-neo", device="cpu")
    task = gl.load_task("restaurants")
    pruner = gl.Pruner(model, "gum", 0.25, steps)
    sums = running_sums(model, pruner.gates)
    agreement: dict[str, list[float]] = {label: [] for label in sums}

    def compare() -> None:
        exact = exact_grams(model, tokenizer, task.train[:examples])
        for label, grams in sums.items():
            for i, (theirs, mask) in enumerate(zip(exact, pruner.masks, strict=True)):
                similarity = likeness_of(grams, i, mask)
                wanted = mean_similarity(theirs, mask)
                agreement[label].append(rank_correlation(similarity, wanted))

    one_step = pruner.step

    def step(*optimizers: Any) -> bool:
        cut = one_step(*optimizers)
        if pruner.frozen:
            raise Enough
        for grams in sums.values():
            grams.step += 1
        if pruner.step_count % max(1, steps // 10) == 0:
            compare()
        return cut

    pruner.step = step
    with suppress(Enough):
        gl.train(model, tokenizer, task, steps=steps, pruner=pruner, progress=False)
    return agreement


def exact_grams(model: Any, tokenizer: Any, examples: list) -> list[torch.Tensor]:
    """G of every layer over examples, of the h that the running sums see.

    That is h before its own layer's gate, behind the gates of the layers below.
    """
    grams = [torch.zeros(layer.width, layer.width) for layer in gl.neurons(model)]
    harness.hear(model, tokenizer, examples, lambda i, rows: grams[i].addmm_(rows.T, rows))
    return grams


def cost_rows(times: pd.DataFrame) -> list[dict[str, str]]:
    """A row a contender: its step beside the dense one."""
    ratios = times.div(times["dense"], axis=0)
    rows = []
    for label in times:
        low, middle, high = ratios[label].quantile([0.25, 0.5, 0.75])
        rows.append(
            {
                "step": label,
                "ratio to dense (median)": f"{middle:.3f}",
                "quartiles": f"{low:.3f} to {high:.3f}",
            }
        )
    return rows


def ranks_text(args: Any) -> str:
    """results/ranks.md."""
    examples = 16 if args.quick else 1024
    agreements = {
        steps: rank_agreement(steps, examples) for steps in ([10] if args.quick else args.steps)
    }
    rows = [
        {
            "similarity": label,
            **{
                f"{steps} steps: mean, smallest": f"{statistics.mean(found[label]):.3f}, "
                f"{min(found[label]):.3f}"
                for steps, found in agreements.items()
            },
        }
        for label in SETTINGS_OF_GUM
    ]
    return (
        "# GUM's running similarity beside the exact one\n\n"
        f"{harness.made_by(f'{args.command} --only ranks')} Spearman's rank correlation of each "
        f"layer's running mean |cosine| with the exact one, of {examples:,} training examples, at "
        "every tenth of a run of tiny-gpt-neo on restaurants, until the masks freeze.\n\n"
        f"{harness.markdown(rows)}"
    )


def times_text(args: Any) -> str:
    """results/step.md."""
    text = (
        f"# What a pruning step costs\n\n"
        f"{harness.made_by(f'{args.command} --only times')} "
        f"{torch.get_num_threads()} threads, {args.rounds} rounds, freed memory kept.\n"
    )
    for setting in QUICK if args.quick else SETTINGS[args.device]:
        labels = [*USUAL, EXACT] if args.device == "cuda" else list(CONTENDERS)
        times = step_times(setting, labels, args.rounds, args.device)
        dense = times["dense"].median()
        text += (
            f"\n## {setting.shape.name}: {setting.shape.layers} layers, {setting.batch} x "
            f"{setting.tokens} tokens\n\nDense step: {1000 * dense:.0f} ms (median), "
            f"{setting.batch * setting.tokens / dense:,.0f} tokens/s.\n\n"
            f"{harness.markdown(cost_rows(times))}"
        )
    return text


def main() -> None:
    parser = harness.options(__doc__, rounds=8, device=True)
    parser.add_argument("--steps", type=int, nargs="*", default=[160, 600], help="of rank runs")
    parser.add_argument("--only", choices=("times", "ranks"), help="(default: both)")
    args = harness.parsed(parser)
    keep_freed_memory()
    if args.only != "ranks":
        harness.write(args, "step.md", times_text(args))
    if args.only != "times" and args.device == "cpu":
        harness.write(args, "ranks.md", ranks_text(args))


if __name__ == "__main__":
    main()
