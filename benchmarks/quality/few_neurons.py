"""What a few neurons and first tokens do, and which score tells a cut's damage: few_neurons.*

    python benchmarks/quality/few_neurons.py --data-dir FOLDER    # smollm2-135m on WikiText
    python benchmarks/quality/few_neurons.py --base tiny-llama    # a built-in base on restaurants

Four questions of one dense base. (A) Which neurons have most of each layer's energy (the sum of
h^2), at which tokens? (B) What happens to the perplexity when just those are cut, held at their
mean, cut at first tokens only, or kept out of a random half? (C) What do sensitivity, cosine,
uniqueness, R2 and effective rank say with and without them, and in each robust form of the sums
(see `gumlab.redundancy`)? (D) Neurons are cut one at a time: which score, in which form, agrees
best with the true change of the loss on the test text, and with how far what the model predicts
moves (the divergence of the cut model from the dense one, which depends less on the text)? A
layer's neurons all start from the stored output of the block before it, so that only the blocks
behind it run.

Every part, and in (D) every layer, is a file in runs/few_neurons: stopped, it goes on where it was.
"""

from __future__ import annotations

import itertools
import math
import os
import random
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import harness
import numpy as np
import pandas as pd
import torch
from allocation import REAL, wikitext_parts
from harness import markdown
from torch import Tensor
from tqdm.auto import tqdm

import gumlab as gl
from gumlab.collecting import CURRENCIES, ROBUST, Statistics, collect, currencies
from gumlab.feedforward import FeedForward, neurons
from gumlab.inspection import HANDFUL, Redundancy, of_statistics
from gumlab.scoring import DATA_SCORES, magnitude
from gumlab.tasks.batches import collated, context_length, encode, evaluating, token_losses

BLOCK = 512  # tokens of a test sequence, at most
PLAIN = "as it is"
WITHOUT = "without its top neurons"
FORMS = (PLAIN, *ROBUST)
TOP = 3  # neurons of a layer that are looked at, and left out in WITHOUT
CUT_TOGETHER = (1, 3, 10)  # of the whole model
DRAWS = range(3)
RESAMPLES = 300  # of the bootstrap
PLACES = {"everywhere": slice(None), "first": slice(0, 1), "others": slice(1, None)}
SEPARATOR = " | "  # between a score and its form, in a column's name
OUTPUT_SCORES = ("Wanda", "FLAP", "OBS")  # counted in every currency


class Lab:
    """A base, what it is measured on, and the parts that are measured once."""

    def __init__(self, args: Any) -> None:
        name = f"{args.base}-{args.calibration}-{args.tokens}-{args.neurons}"
        self.folder = args.runs / "few_neurons" / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.model, self.tokenizer = gl.load(args.base, device="cpu")
        self.layers = neurons(self.model)
        self.blocks = [self.model.get_submodule(numbered(layer.name)) for layer in self.layers]
        self.per_layer = args.neurons
        context = context_length(self.model)
        if args.base == REAL:
            self.examples, test = wikitext_parts(gl.load_task("wikitext", args.data_dir))
        else:
            task = gl.load_task("restaurants")
            self.examples, test = task.train[:1024], task.test
        seen = until(encode(self.tokenizer, self.examples, context), args.calibration)
        self.calibration = list(collated(self.model, seen, 2 if args.base == REAL else 16))
        if args.base == REAL:
            self.options = {"limit": None, "tokens": args.calibration, "batch_size": 2}
        else:
            self.options = {"limit": len(seen)}
        rows = encode(self.tokenizer, test, min(BLOCK, context))
        self.test = list(collated(self.model, until(rows, 2 * args.tokens), 4))
        self.few = list(collated(self.model, until(rows, args.tokens), 16))

    def once(self, name: str, measure: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """A part's rows, measured now or in a run before."""
        path = self.folder / f"{name}.csv"
        if not path.exists():
            unfinished = path.with_suffix(".part")
            began = time.perf_counter()
            measure().to_csv(unfinished, index=False)
            os.replace(unfinished, path)
            print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
        return read(path)


def read(path: Path) -> pd.DataFrame:
    """A table as it was stored; a token "null" is a text."""
    return pd.read_csv(path, keep_default_na=False, na_values=["", "nan"])


def numbered(name: str) -> str:
    """The name of the numbered layer that a block is part of.

    >>> numbered("model.layers.11.mlp")
    'model.layers.11'
    """
    return re.match(r"^(?:.*?\.)?\d+\b", name)[0]


def until(rows: Sequence[Any], tokens: int) -> list[Any]:
    """The first rows, up to so many tokens or a few more; two rows at least."""
    total = itertools.accumulate(len(ids) for ids, _ in rows)
    count = sum(before < tokens for before in itertools.islice(total, len(rows) - 1)) + 1
    return list(rows[: max(2, count)])


# --- what is measured of every neuron -------------------------------------------------------------


def worth(lab: Lab, form: str, prices: dict[str, list[Any]]) -> pd.DataFrame:
    """Every score of every neuron in one form; as it is, also without the top neurons."""
    robust = None if form == PLAIN else form
    statistics = collect(
        lab.model, lab.tokenizer, lab.examples, gradients=True, robust=robust, **lab.options
    )
    report = of_statistics(lab.layers, statistics, robust=robust)
    frames = [by_neuron(lab.layers, statistics, report, prices, form)]
    if form == PLAIN:
        for layer in statistics:
            top = torch.zeros_like(layer.dead)
            top[layer.energy.topk(TOP).indices] = True
            layer.forget(top)
        report = of_statistics(lab.layers, statistics)
        frames.append(by_neuron(lab.layers, statistics, report, prices, WITHOUT))
    return pd.concat(frames, ignore_index=True)


def by_neuron(
    layers: Sequence[FeedForward],
    statistics: Sequence[Statistics],
    report: Redundancy,
    prices: dict[str, list[Any]],
    form: str,
) -> pd.DataFrame:
    """A row per neuron: its scores, and what the form says of its layer."""
    frames = []
    for number, (layer, seen) in enumerate(zip(layers, statistics, strict=True)):
        columns = {
            "energy": report.energy[number],
            "sensitivity": report.sensitivity[number],
            "1 - max cosine": 1 - report.max_cosine[number].abs(),
            "1 - R2": report.exact_uniqueness[number],
            "magnitude": magnitude(layer),
            "unique": report.unique[number],
            "dead": report.dead[number],
            "max_activation": report.max_activation[number],
            "mean": seen.mean,
        }
        rest = report.obs[number] / layer.outgoing().detach().float().square().sum(1)
        for currency in CURRENCIES:
            seen.currency = prices[currency][number]
            suffix = "" if currency == "output" else f", {currency}"
            columns["Wanda" + suffix] = DATA_SCORES["wanda"](layer, seen)
            columns["FLAP" + suffix] = DATA_SCORES["flap"](layer, seen)
            columns["OBS" + suffix] = rest * gl.scoring.squared_norm(layer, seen.currency)
        frame = pd.DataFrame({name: x.detach().numpy() for name, x in columns.items()})
        frame.insert(0, "form", form)
        frame.insert(1, "layer", number)
        frame.insert(2, "neuron", range(len(frame)))
        for name in ("effective_rank", "top_neuron", "first_tokens", "top_tokens"):
            frame[name] = getattr(report, name)[number]
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def by_layer(everyone: pd.DataFrame) -> pd.DataFrame:
    """Part C: a row per layer and form, over the neurons that are not dead."""
    alive = everyone[~everyone["dead"].astype(bool)]
    alive = alive.assign(
        uniqueness=alive["unique"].astype(float),
        mean_max_cosine=1 - alive["1 - max cosine"],
        R2=1 - alive["1 - R2"],
    )
    names = ["sensitivity", "mean_max_cosine", "uniqueness", "R2", "effective_rank"]
    names += ["top_neuron", "first_tokens", "top_tokens", "max_activation"]
    how = dict.fromkeys(names, "mean") | {"max_activation": "max"}
    return alive.groupby(["layer", "form"], sort=False).agg(how).reset_index()


# --- A: what carries a layer ----------------------------------------------------------------------


@torch.no_grad()
def carriers(lab: Lab, plain: pd.DataFrame) -> pd.DataFrame:
    """A row for each of a layer's neurons of most energy: where its energy is."""
    chosen = [
        torch.tensor(of.nlargest(TOP, "energy")["neuron"].to_numpy())
        for _, of in plain.groupby("layer")
    ]
    seen: list[list[Tensor]] = [[] for _ in chosen]
    tokens, positions = [], []
    with ExitStack() as stack, evaluating(lab.model):
        for layer, which, kept in zip(lab.layers, chosen, seen, strict=True):
            stack.enter_context(
                layer.proj.register_forward_pre_hook(
                    lambda _, x, which=which, kept=kept: kept.append(x[0][..., which])
                )
            )
        for batch in lab.calibration:
            real = batch["attention_mask"].bool()
            lab.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
            for kept in seen:
                kept[-1] = kept[-1].flatten(0, -2)[real.flatten()]
            tokens += batch["input_ids"][real].tolist()
            positions += real.nonzero()[:, 1].tolist()
    texts = np.array([lab.tokenizer.decode([token]) for token in tokens], dtype=object)
    first = np.array(positions) == 0
    delimiter = np.array([not any(c.isalnum() for c in text) for text in texts]) & ~first
    rows = []
    totals = plain.groupby("layer")["energy"].sum()
    for number, (which, kept) in enumerate(zip(chosen, seen, strict=True)):
        h = torch.cat(kept).double().numpy()
        for rank, neuron in enumerate(which.tolist()):
            energy = h[:, rank] ** 2
            at = int(energy.argmax())
            whole = energy.sum()
            rows.append(
                {
                    "layer": number,
                    "rank": rank + 1,
                    "neuron": neuron,
                    "share": whole / totals[number],
                    "max_activation": math.sqrt(energy[at]),
                    "position": positions[at],
                    "token": repr(texts[at]),
                    "at first tokens": energy[first].sum() / whole,
                    "at delimiters": energy[delimiter].sum() / whole,
                    "elsewhere": energy[~first & ~delimiter].sum() / whole,
                }
            )
    return pd.DataFrame(rows)


# --- B: cutting some together ---------------------------------------------------------------------


@contextmanager
def held(
    layers: Sequence[FeedForward],
    chosen: dict[int, list[int]],
    place: str = "everywhere",
    values: dict[int, Tensor] | None = None,
) -> Iterator[None]:
    """Some neurons of some layers at 0, or at `values`, (N,) by layer, while it lasts.

    place: at all tokens, at the first ones of the sequences, or at all others.
    """

    def hook(which: list[int], value: Any) -> Callable[..., tuple[Tensor]]:
        def before_proj(_: Any, inputs: tuple[Tensor]) -> tuple[Tensor]:
            h = inputs[0].clone()  # (B, T, N)
            h[:, PLACES[place], which] = value
            return (h,)

        return before_proj

    with ExitStack() as stack:
        for number, which in chosen.items():
            value = 0.0 if values is None else values[number][which]
            stack.enter_context(layers[number].proj.register_forward_pre_hook(hook(which, value)))
        yield


@torch.no_grad()
def sequence_nats(model: Any, batches: Sequence[dict[str, Tensor]]) -> Tensor:
    """The loss of each sequence, summed over its predicted tokens, float64."""
    found = []
    with evaluating(model):
        for batch in batches:
            inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
            logits = model(**inputs, use_cache=False).logits
            found.append(token_losses(logits, batch["labels"]).double().sum(1))
    return torch.cat(found)


def predicted(batches: Sequence[dict[str, Tensor]]) -> Tensor:
    """How many tokens of each sequence are predicted."""
    return torch.cat([(batch["labels"][:, 1:] >= 0).sum(1) for batch in batches])


def grouped(pairs: Sequence[tuple[int, int]]) -> dict[int, list[int]]:
    """Neurons by layer of pairs (layer, neuron)."""
    found: dict[int, list[int]] = {}
    for layer, neuron in pairs:
        found.setdefault(layer, []).append(neuron)
    return found


def removals(plain: pd.DataFrame) -> list[dict[str, Any]]:
    """What part B cuts: a label, the draw, and the arguments of `held`."""
    pairs = list(zip(plain["layer"], plain["neuron"], strict=True))
    by_energy = [pairs[i] for i in plain["energy"].sort_values(ascending=False).index]
    means = {
        number: torch.tensor(of["mean"].to_numpy(), dtype=torch.float32)
        for number, of in plain.groupby("layer")
    }
    found: list[dict[str, Any]] = [{"what": "dense", "chosen": {}}]
    for count in CUT_TOGETHER:
        top = grouped(by_energy[:count])
        label = f"the {count} of most energy" if count > 1 else "the one of most energy"
        found.append({"what": label, "count": count, "chosen": top})
        found.append({"what": f"{label}, held at the mean", "chosen": top, "values": means})
        found.append({"what": f"{label}, at first tokens only", "chosen": top, "place": "first"})
        found.append({"what": f"{label}, at other tokens only", "chosen": top, "place": "others"})
        for draw in DRAWS:
            drawn = random.Random(draw).sample(pairs, count)
            found.append({"what": f"{count} at random", "draw": draw, "chosen": grouped(drawn)})
    kept = set(by_energy[: CUT_TOGETHER[-1]])
    for draw in DRAWS:
        half = random.Random(draw).sample(pairs, len(pairs) // 2)
        spared = [pair for pair in half if pair not in kept]
        name = f"a random half, the {CUT_TOGETHER[-1]} of most energy"
        found.append({"what": "a random half", "draw": draw, "chosen": grouped(half)})
        found.append({"what": f"{name} spared", "draw": draw, "chosen": grouped(spared)})
        with_them = [*spared, *sorted(kept)]
        found.append({"what": f"{name} among them", "draw": draw, "chosen": grouped(with_them)})
    return found


def cuts(lab: Lab, plain: pd.DataFrame) -> pd.DataFrame:
    """Part B: a row per removal."""
    tokens = int(predicted(lab.test).sum())
    rows = []
    for removal in tqdm(removals(plain), unit="removal", desc="B"):
        chosen = removal["chosen"]
        with held(lab.layers, chosen, removal.get("place", "everywhere"), removal.get("values")):
            loss = float(sequence_nats(lab.model, lab.test).sum()) / tokens
        rows.append(
            {
                "cut": removal["what"],
                "draw": removal.get("draw", 0),
                "neurons": sum(len(which) for which in chosen.values()),
                "loss": loss,
                "tokens": tokens,
            }
        )
    return pd.DataFrame(rows)


# --- D: one neuron at a time ----------------------------------------------------------------------


def chosen_neurons(plain: pd.DataFrame, per_layer: int) -> pd.DataFrame:
    """Neurons drawn uniformly in each layer; those of most energy, of each layer and of all."""
    rows = []
    first = plain.groupby("layer")["energy"].idxmax()
    energetic = set(first) | set(plain["energy"].nlargest(CUT_TOGETHER[-1]).index)
    for number, of in plain.groupby("layer"):
        width = len(of)
        drawn = random.Random(int(number)).sample(range(width), min(per_layer, width))
        rows += [(number, neuron, "uniform") for neuron in sorted(drawn)]
        most = [int(plain.at[i, "neuron"]) for i in energetic if plain.at[i, "layer"] == number]
        rows += [(number, neuron, "energy") for neuron in sorted(set(most) - set(drawn))]
    return pd.DataFrame(rows, columns=["layer", "neuron", "drawn"])


class Restart:
    """A model whose forward pass on some batches starts at a block, from what was stored."""

    def __init__(self, lab: Lab) -> None:
        self.model, self.blocks, self.batches = lab.model, lab.blocks, lab.few
        self.outputs: list[list[Any]] = [[] for _ in self.blocks]  # by block, by batch
        with ExitStack() as stack:
            for block, kept in zip(self.blocks, self.outputs, strict=True):
                stack.enter_context(
                    block.register_forward_hook(lambda _, x, y, kept=kept: kept.append(y))
                )
            self.dense = [predictions(self.model, batch) for batch in self.batches]

    def passed(self, start: int) -> tuple[Tensor, Tensor]:
        """Loss and divergence from the dense model of each sequence, summed over its tokens.

        The blocks before `start` are passed over. float64, (sequences,) each.
        """
        losses, divergences = [], []
        for number, (batch, dense) in enumerate(zip(self.batches, self.dense, strict=True)):
            with ExitStack() as stack:
                for block in self.blocks[:start]:
                    stored = self.outputs[start - 1][number]
                    block.forward = lambda *_, stored=stored, **__: stored
                    stack.callback(vars(block).pop, "forward")
                log_p = predictions(self.model, batch)
            wanted = batch["labels"][:, 1:]  # (B, T - 1)
            counts = wanted >= 0
            chosen = log_p.gather(-1, wanted.clamp_min(0)[..., None])[..., 0]
            losses.append(-(chosen.double() * counts).sum(1))
            divergences.append((divergence(dense, log_p) * counts).sum(1))
        return torch.cat(losses), torch.cat(divergences)


@torch.no_grad()
def predictions(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """log p of every next token, (B, T - 1, V)."""
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    with evaluating(model):
        logits = model(**inputs, use_cache=False).logits
    return logits[:, :-1].log_softmax(-1)


def divergence(dense: Tensor, log_p: Tensor) -> Tensor:
    """Kullback and Leibler's divergence of predictions from the dense ones, (B, T - 1), float64.

    sum of p (q / p - 1 - log(q / p)): as both sum to 1 it is sum of p log(p / q), and no rounding
    of a normaliser is in it.
    """
    ratio = log_p - dense
    return (dense.exp() * (ratio.expm1() - ratio)).sum(-1, dtype=torch.float64)


def damage(lab: Lab, restart: Restart, number: int, which: Sequence[int], bar: Any) -> pd.DataFrame:
    """What the loss rises by without each of some neurons of one layer, one at a time.

    And the divergence. Nats per predicted token; of all sequences, of every other one and the rest.
    """
    tokens = predicted(lab.few)
    dense, _ = restart.passed(number)
    parts = {"": slice(None), ", one half": slice(0, None, 2), ", other half": slice(1, None, 2)}
    rows = []
    for neuron in which:
        with held(lab.layers, {number: [neuron]}):
            losses, divergences = restart.passed(number)
        row = {"layer": number, "neuron": neuron}
        for name, values in (("change", losses - dense), ("divergence", divergences)):
            for part, places in parts.items():
                row[name + part] = float(values[places].sum() / tokens[places].sum())
        rows.append(row)
        bar.update()
    return pd.DataFrame(rows)


def estimate(lab: Lab, chosen: pd.DataFrame, restart: Restart) -> float:
    """The seconds that part D will take, by one pass from the first and one from the last block."""
    last = len(lab.layers) - 1
    first_takes = harness.seconds(lambda: restart.passed(0))
    last_takes = harness.seconds(lambda: restart.passed(last))
    share = chosen["layer"] / max(1, last)
    return float((first_takes + share * (last_takes - first_takes)).sum())


def damages(lab: Lab, plain: pd.DataFrame) -> pd.DataFrame:
    """Part D's rows: layer, neuron, drawn; change and divergence, of all and by halves."""
    chosen = chosen_neurons(plain, lab.per_layer)
    missing = [
        number
        for number in chosen["layer"].unique()
        if not (lab.folder / f"damage-{number:02d}.csv").exists()
    ]
    restart = None
    to_do = chosen[chosen["layer"].isin(missing)]
    if missing:
        restart = Restart(lab)
        seconds = estimate(lab, to_do, restart)
        print(f"D: {len(to_do)} neurons, about {seconds / 60:.1f} minutes", flush=True)
    frames = []
    with tqdm(total=len(to_do), unit="neuron", desc="D") as bar:
        for number, of in chosen.groupby("layer"):
            which = of["neuron"].tolist()
            frames.append(
                lab.once(
                    f"damage-{number:02d}",
                    lambda number=number, which=which: damage(lab, restart, number, which, bar),
                )
            )
    return chosen.merge(pd.concat(frames, ignore_index=True), on=["layer", "neuron"])


def with_scores(changes: pd.DataFrame, everyone: pd.DataFrame) -> pd.DataFrame:
    """The cut neurons with every score in every form, a column `score | form` each."""
    scores = ["energy", "sensitivity", "1 - max cosine", "1 - R2"]
    scores += [name for name in everyone if name.split(",")[0] in OUTPUT_SCORES]
    table = changes
    for form in FORMS:
        mine = everyone[everyone["form"] == form]
        names = [*scores, *(["magnitude"] if form == PLAIN else [])]
        renamed = mine[["layer", "neuron", *names]].rename(
            columns={name: f"{name}{SEPARATOR}{form}" for name in names}
        )
        table = table.merge(renamed, on=["layer", "neuron"])
    return table


# --- rank agreement -------------------------------------------------------------------------------


def spearman(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Spearman's correlation of each row, (R, n) each; 0 where a row is constant."""
    a, b = (pd.DataFrame(x).rank(axis=1).to_numpy() for x in (one, other))
    a, b = (x - x.mean(1, keepdims=True) for x in (a, b))
    size = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return np.divide((a * b).sum(1), size, out=np.zeros(len(a)), where=size > 0)


def kendall(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Kendall's tau-b of each row, (R, n) each; 0 where a row is constant."""
    found = np.zeros(len(one))
    for row, (x, y) in enumerate(zip(one, other, strict=True)):
        a = np.sign(x[:, None] - x).astype(np.int8).ravel()
        b = np.sign(y[:, None] - y).astype(np.int8).ravel()
        untied = np.count_nonzero(a) * np.count_nonzero(b)
        if untied:
            found[row] = np.dot(a.astype(np.float32), b.astype(np.float32)) / math.sqrt(untied)
    return found


def resamples(layers: np.ndarray, count: int = RESAMPLES) -> np.ndarray:
    """Rows of positions, (1 + count, n): all once, then as many drawn anew within each layer."""
    generator = np.random.default_rng(0)
    rows = np.empty((1 + count, len(layers)), dtype=int)
    rows[0] = np.arange(len(layers))
    for layer in np.unique(layers):
        here = np.flatnonzero(layers == layer)
        rows[1:, here] = generator.choice(here, (count, len(here)))
    return rows


def agreements(
    score: np.ndarray, change: np.ndarray, layers: np.ndarray, rows: np.ndarray
) -> dict[str, np.ndarray]:
    """Rank agreement, over all neurons and as the mean within layers: point, then resamples."""
    a, b = score[rows], change[rows]
    found = {"Spearman": spearman(a, b), "Kendall": kendall(a, b)}
    within = [np.flatnonzero(layers == layer) for layer in np.unique(layers)]
    for name, measure in (("Spearman", spearman), ("Kendall", kendall)):
        by_layer = [measure(a[:, here], b[:, here]) for here in within]
        found[f"{name} within layers"] = np.mean(by_layer, axis=0)
    return found


TARGETS = {"change": "", "divergence": ", divergence"}  # what a column's name says of it
MEASURES = ("Spearman", "Kendall", "Spearman within layers", "Kendall within layers")


def agreement(table: pd.DataFrame, count: int = RESAMPLES) -> pd.DataFrame:
    """A row per score and form: how it ranks the neurons drawn uniformly, beside what cutting does.

    Each measure with "low" and "high", the 95 % interval by a bootstrap within layers; those of
    TARGETS's "divergence" with it in the place of the change of the loss. "gain", what Spearman's
    is above that of the score as it is; "behind", how far it is below the best one; "with energy",
    Spearman's over those chosen by energy too.
    """
    uniform = table[table["drawn"] == "uniform"]
    layers = uniform["layer"].to_numpy()
    rows = resamples(layers, count)
    names = [name for name in table if SEPARATOR in name]
    found = {
        target: {
            name: agreements(uniform[name].to_numpy(), uniform[target].to_numpy(), layers, rows)
            for name in names
        }
        for target in TARGETS
    }
    result = []
    for name in names:
        score, form = name.split(SEPARATOR)
        row: dict[str, Any] = {"score": score, "form": form}
        for target, suffix in TARGETS.items():
            of = found[target]
            for measure in MEASURES:
                row |= interval(measure + suffix, of[name][measure])
            spearmans = {other: of[other]["Spearman"] for other in names}
            best = max(names, key=lambda other, by=spearmans: by[other][0])
            gain = spearmans[name] - spearmans[score + SEPARATOR + PLAIN]
            row |= interval("gain" + suffix, gain)
            row |= interval("behind" + suffix, spearmans[best] - spearmans[name])
            everyone = (table[[one]].to_numpy().T for one in (name, target))
            row["with energy" + suffix] = spearman(*everyone)[0]
        result.append(row)
    return pd.DataFrame(result)


def interval(name: str, values: np.ndarray) -> dict[str, float]:
    """The point, and the 2.5th and 97.5th percentile of its resamples, as three columns."""
    low, high = np.percentile(values[1:], [2.5, 97.5])
    return {name: values[0], f"{name}, low": low, f"{name}, high": high}


# --- report ---------------------------------------------------------------------------------------


def shown_layers(layers: pd.DataFrame) -> list[int]:
    """The first, middle and last layers, and the one that rests most on one neuron."""
    last = int(layers["layer"].max())
    plain = layers[layers["form"] == PLAIN]
    most = int(plain.loc[plain["top_neuron"].idxmax(), "layer"])
    return sorted({0, last // 4, last // 2, 3 * last // 4, last, most})


def said_of_carriers(table: pd.DataFrame, layers: pd.DataFrame) -> str:
    """What part A found, in sentences."""
    plain = layers[layers["form"] == PLAIN]
    shares = plain[["top_neuron", "first_tokens", "top_tokens"]]
    heavy = plain[shares.max(axis=1) > HANDFUL]["layer"].tolist()
    tops = table[table["rank"] == 1]
    most = tops.loc[tops["share"].idxmax()]
    largest = table.loc[table["max_activation"].idxmax()]
    listed = f" ({', '.join(map(str, heavy))})" if heavy else ""
    at_first = int((tops["at first tokens"] > HANDFUL).sum())
    at_delimiters = int((tops["at delimiters"] > HANDFUL).sum())
    return (
        f"- More than {HANDFUL:.0%} of the energy rests on one neuron, on first tokens or on one "
        f"in a hundred tokens in {len(heavy)} of {len(plain)} layers{listed}.\n"
        f"- The largest share of one neuron is {most['share']:.0%}: neuron {most['neuron']} of "
        f"layer {most['layer']}, {most['at first tokens']:.0%} of it at first tokens. The largest "
        f"|h| is {largest['max_activation']:,.0f}: neuron {largest['neuron']} of layer "
        f"{largest['layer']}, at position {largest['position']}, token {largest['token']}.\n"
        f"- Of the {len(tops)} layers' top neurons, {at_first} have more than {HANDFUL:.0%} of "
        f"their energy at first tokens, {at_delimiters} at delimiters behind them (tokens without "
        "letter or digit).\n"
    )


def said_of_cuts(table: pd.DataFrame) -> str:
    """What part B found, a row per removal, and in sentences."""
    dense = float(table.loc[table["cut"] == "dense", "loss"].iloc[0])
    rows = []
    for cut, of in table.groupby("cut", sort=False):
        each = of["loss"].map(lambda loss: math.exp(min(loss, 700)))
        rows.append(
            {
                "cut": cut,
                "neurons": f"{of['neurons'].mean():,.0f}",
                "perplexity": ", ".join(f"{value:.5g}" for value in each),
                "loss above dense": f"{of['loss'].mean() - dense:+.4f}",
            }
        )
    mean = table.groupby("cut", sort=False)["loss"].mean() - dense
    sentences = []
    for count in CUT_TOGETHER:
        label = f"the {count} of most energy" if count > 1 else "the one of most energy"
        top, drawn = mean[label], mean[f"{count} at random"]
        where = "first" if mean[f"{label}, at first tokens only"] > top / 2 else "other"
        sentences.append(
            f"- Without {label} the loss is {top:+.4f} above dense, without {count} at random "
            f"{drawn:+.4f}; held at the mean {mean[f'{label}, held at the mean']:+.4f}, cut at "
            f"first tokens only {mean[f'{label}, at first tokens only']:+.4f}, at the others only "
            f"{mean[f'{label}, at other tokens only']:+.4f}"
            + (f". Most of it is done at {where} tokens.\n" if top > 0 else ".\n")
        )
    name = f"a random half, the {CUT_TOGETHER[-1]} of most energy"
    sentences.append(
        f"- Without a random half the loss is {mean['a random half']:+.4f} above dense; with the "
        f"{CUT_TOGETHER[-1]} of most energy spared {mean[f'{name} spared']:+.4f}, with them among "
        f"those cut {mean[f'{name} among them']:+.4f}.\n"
    )
    return f"{markdown(rows)}\n{''.join(sentences)}"


def said_of_layers(layers: pd.DataFrame) -> str:
    """Part C: some layers and the mean of all, a row per form."""
    names = ["sensitivity", "mean_max_cosine", "uniqueness", "R2", "effective_rank"]
    names += ["top_neuron", "first_tokens"]
    mean = layers.groupby("form", sort=False)[names].mean().reset_index().assign(layer="mean")
    some = layers[layers["layer"].isin(shown_layers(layers))]
    rows = []
    for row in pd.concat([some, mean]).to_dict("records"):
        told = {"layer": row["layer"], "form": row["form"]}
        told |= {name: f"{row[name]:.3g}" for name in names}
        rows.append(told)
    plain = mean.set_index("form").loc[PLAIN]
    text = [markdown(rows), "\n"]
    for form in (WITHOUT, *ROBUST):
        here = mean.set_index("form").loc[form]
        text.append(
            f"- {form}: mean effective rank {plain['effective_rank']:.1f} -> "
            f"{here['effective_rank']:.1f}, mean R2 {plain['R2']:.3f} -> {here['R2']:.3f}, "
            f"uniqueness {plain['uniqueness']:.3f} -> {here['uniqueness']:.3f}, mean largest "
            f"|cosine| {plain['mean_max_cosine']:.3f} -> {here['mean_max_cosine']:.3f}.\n"
        )
    return "".join(text)


def with_interval(row: dict[str, Any], name: str, sign: str = "") -> str:
    """A measure and its interval as text."""
    low, high = row[f"{name}, low"], row[f"{name}, high"]
    return f"{row[name]:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


def ranked(ranks: pd.DataFrame, suffix: str) -> str:
    """The agreement of every score and form with one target, the best first."""
    rows = []
    ordered = ranks.sort_values("Spearman" + suffix, ascending=False)
    for row in ordered.to_dict("records"):
        told = {"score": row["score"], "form": row["form"]}
        told |= {measure: with_interval(row, measure + suffix) for measure in MEASURES}
        gain = with_interval(row, "gain" + suffix, "+")
        told["gain over as it is"] = "" if row["form"] == PLAIN else gain
        told["with energy"] = f"{row['with energy' + suffix]:.3f}"
        rows.append(told)
    return markdown(rows)


def said_of_ranks(uniform: pd.DataFrame, ranks: pd.DataFrame, target: str) -> str:
    """Which scores and forms agree best with one target, in sentences."""
    suffix = TARGETS[target]
    ordered = ranks.sort_values("Spearman" + suffix, ascending=False)
    best = ordered.iloc[0]
    level = int((ordered["behind" + suffix + ", low"] <= 0).sum()) - 1
    inside = ordered.loc[ordered["Spearman within layers" + suffix].idxmax()]
    halves = (uniform[[f"{target}, {half} half"]].to_numpy().T for half in ("one", "other"))
    text = [
        f"- Over all layers {best['score']}, {best['form']}, agrees best: Spearman "
        f"{with_interval(best, 'Spearman' + suffix)}; {level} of the other {len(ordered) - 1} "
        "cannot be told from it (the interval of the difference has zero in it).\n",
        f"- Within layers {inside['score']}, {inside['form']}, agrees best: "
        f"{with_interval(inside, 'Spearman within layers' + suffix)}.\n",
        f"- How one half of the test text ranks the neurons agrees with how the other does by "
        f"{spearman(*halves)[0]:.3f}.\n",
    ]
    for form in ROBUST:
        of = ordered[ordered["form"] == form]
        better = "; ".join(of.loc[of[f"gain{suffix}, low"] > 0, "score"]) or "none"
        worse = "; ".join(of.loc[of[f"gain{suffix}, high"] < 0, "score"]) or "none"
        text.append(f"- {form}, shown to be better than as it is: {better}. Worse: {worse}.\n")
    return "".join(text)


def said_of_damage(table: pd.DataFrame) -> str:
    """How large the changes are, in a sentence."""
    uniform = table[table["drawn"] == "uniform"]["change"]
    energetic = table[table["drawn"] == "energy"]["change"]
    return (
        f"- The loss falls without {(uniform < 0).mean():.0%} of the neurons drawn uniformly. The "
        f"median change is {uniform.median():+.2g} nats per token, the largest "
        f"{uniform.max():+.2g}; of those chosen by energy {energetic.median():+.2g} and "
        f"{energetic.max():+.2g}.\n"
    )


def most_damaging(table: pd.DataFrame) -> str:
    """The neurons whose cut costs most, as a table."""
    rows = [
        {
            "layer": row["layer"],
            "neuron": row["neuron"],
            "drawn": row["drawn"],
            "change": f"{row['change']:+.4f}",
            "divergence": f"{row['divergence']:.4f}",
        }
        for row in table.nlargest(10, "change").to_dict("records")
    ]
    return markdown(rows)


def report(command: str, tables: dict[str, pd.DataFrame], said: dict[str, Any]) -> str:
    """results/few_neurons.md."""
    layers = tables["layers"]
    carrying = tables["carriers"][tables["carriers"]["layer"].isin(shown_layers(layers))]
    carrying = carrying.assign(token=carrying["token"].str.replace("|", "\\|"))
    shares = ["share", "at first tokens", "at delimiters", "elsewhere"]
    digits = dict.fromkeys(shares, 3) | {"max_activation": 1}
    drawn = tables["damage"][tables["damage"]["drawn"] == "uniform"]
    uniform, energetic = len(drawn), len(tables["damage"]) - len(drawn)
    return (
        f"# A few neurons and first tokens\n\n{harness.made_by(command)} Base {said['base']}; "
        f"calibration {said['calibration']:,} tokens, test {said['test']:,} tokens in (B) and "
        f"{said['few']:,} in (D).\n\n"
        "![Energy of the top neuron by layer, and how scores rank the damage]"
        f"({said['figure']})\n\n"
        "## A. What carries a layer\n\n"
        f"The {TOP} neurons of most energy, in some layers (all in the CSV): share of the layer's "
        "energy, where |h| is largest, and where the neuron's energy is.\n\n"
        f"{markdown(carrying.round(digits).to_dict('records'))}\n"
        f"{said_of_carriers(tables['carriers'], layers)}\n"
        "## B. When just those are cut\n\nNeurons of the whole model; one number a draw.\n\n"
        f"{said_of_cuts(tables['cuts'])}\n"
        "## C. What the measures say, with and without\n\n"
        f"Means over the neurons of a layer that are not dead. {WITHOUT}: the {TOP} of most energy "
        f"of each layer taken out of G.\n\n{said_of_layers(layers)}\n"
        "## D. Which score tells the damage\n\n"
        f"{uniform} neurons drawn uniformly in the layers, and {energetic} more, those of most "
        "energy in their layer or in all, are cut one at a time.\n\n"
        f"{said_of_damage(tables['damage'])}\n"
        f"Rank agreement of each score with the true change of the loss over those drawn "
        f"uniformly; 95 % intervals by {RESAMPLES} bootstrap draws within layers. With energy: "
        "Spearman's with the others too.\n\n"
        f"{said_of_ranks(drawn, tables['agreement'], 'change')}\n"
        f"{ranked(tables['agreement'], TARGETS['change'])}\n"
        "The same with the divergence of what the cut model predicts from what the dense one "
        "does:\n\n"
        f"{said_of_ranks(drawn, tables['agreement'], 'divergence')}\n"
        f"{ranked(tables['agreement'], TARGETS['divergence'])}\n"
        f"The neurons whose cut costs most:\n\n{most_damaging(tables['damage'])}"
    )


def draw_figure(layers: pd.DataFrame, ranks: pd.DataFrame) -> Any:
    """Left: the top neuron's share of the energy by layer. Then rank agreement by score."""
    from gumlab.course.plots.figure import STYLES, new_figure

    figure, (left, middle, right) = new_figure(3, width=15.0, height=5.0)
    for form, style in zip(FORMS, STYLES, strict=False):
        of = layers[layers["form"] == form]
        left.plot(of["layer"], of["top_neuron"], style.fmt, color=style.colour, ms=4, label=form)
    left.axhline(HANDFUL, color="grey", lw=0.8, ls="--")
    left.set(xlabel="layer", ylabel="share of the energy of the top neuron", ylim=(0, 1.02))
    left.legend(frameon=False, fontsize=8)
    plain = ranks[ranks["form"] == PLAIN].sort_values("Spearman")
    names = plain["score"].tolist()
    what = {"change": "change of the loss", "divergence": "divergence"}
    for ax, (target, suffix) in zip((middle, right), TARGETS.items(), strict=True):
        for number, (form, style) in enumerate(zip(FORMS, STYLES, strict=False)):
            of = ranks[ranks["form"] == form]
            places = [names.index(score) + 0.18 * (1.5 - number) for score in of["score"]]
            point = of["Spearman" + suffix]
            below = (point - of[f"Spearman{suffix}, low"]).clip(lower=0)
            above = (of[f"Spearman{suffix}, high"] - point).clip(lower=0)
            ax.errorbar(
                point, places, xerr=[below, above], fmt=style.marker, color=style.colour, ms=4, lw=1
            )
        ax.axvline(0, color="grey", lw=0.8, ls="--")
        ax.set_yticks(range(len(names)), names, fontsize=8)
        ax.set(xlabel=f"rank agreement with the {what[target]} (Spearman)")
    return figure


# --- the run --------------------------------------------------------------------------------------


def measured(lab: Lab) -> dict[str, pd.DataFrame]:
    """The rows of all parts by name."""
    prices: dict[str, list[Any]] = {}

    def price() -> dict[str, list[Any]]:
        for currency in CURRENCIES if not prices else ():
            prices[currency] = currencies(
                lab.model, lab.tokenizer, lab.examples, currency, **lab.options
            )
        return prices

    everyone = pd.concat(
        [lab.once(f"worth-{form}", lambda f=form: worth(lab, f, price())) for form in FORMS],
        ignore_index=True,
    )
    plain = everyone[everyone["form"] == PLAIN].reset_index(drop=True)
    changes = damages(lab, plain)
    table = with_scores(changes, everyone)
    return {
        "carriers": lab.once("carriers", lambda: carriers(lab, plain)),
        "cuts": lab.once("cuts", lambda: cuts(lab, plain)),
        "layers": by_layer(everyone),
        "damage": table,
        "agreement": agreement(table),
    }


def main() -> None:
    parser = harness.options(__doc__)
    parser.add_argument("--base", help=f"(default: {REAL}; with --quick tiny-llama)")
    parser.add_argument("--data-dir", help=f"WikiText's folder, for {REAL}")
    parser.add_argument("--tokens", type=int, default=1024, help="of the test text, in D")
    parser.add_argument("--calibration", type=int, default=8192, help="tokens that scores see")
    parser.add_argument("--neurons", type=int, default=10, help="drawn in each layer, in D")
    args = harness.parsed(parser)
    args.base = args.base or ("tiny-llama" if args.quick else REAL)
    if args.base == REAL and not args.data_dir:
        sys.exit(f"{REAL} is measured on WikiText: give its folder as --data-dir.")
    if args.quick:
        args.tokens, args.calibration, args.neurons = 64, 256, 2
    lab = Lab(args)
    tables = measured(lab)
    stem = "few_neurons" if args.base == REAL else f"few_neurons_{args.base}"
    args.command += " --data-dir FOLDER" if args.base == REAL else f" --base {args.base}"
    for name, table in tables.items():  # the report is of the rows as they are stored
        path = args.out / f"{stem}_{name}.csv"
        table.to_csv(path, index=False, float_format="%.6g")
        tables[name] = read(path)
    harness.save_figure(args, f"{stem}.png", draw_figure(tables["layers"], tables["agreement"]))
    said = {
        "base": args.base,
        "calibration": sum(int(batch["attention_mask"].sum()) for batch in lab.calibration),
        "test": int(predicted(lab.test).sum()),
        "few": int(predicted(lab.few).sum()),
        "figure": f"{stem}.png",
    }
    harness.write(args, f"{stem}.md", report(args.command, tables, said))


if __name__ == "__main__":
    main()
