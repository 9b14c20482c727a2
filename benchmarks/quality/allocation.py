"""One-shot pruning: score x allocation over the layers x refit x keep: results/allocation.*

    python benchmarks/quality/allocation.py --data-dir FOLDER    # WikiText's; else tiny bases only
    python benchmarks/quality/allocation.py --only tiny-gpt2     # one base

A setting is a base and a task; a draw takes the calibration data by its seed (256 examples, or of
running text 14 blocks of 1,024 tokens), and everything is measured on the same test data (200
examples, or 8 blocks). Nothing is trained. Every row is a file in runs/allocation: stopped, it goes
on where it was. What a draw measures once (statistics, currencies, scores) serves all of its rows;
a `gumlab.Study` would measure it anew for each of them, so this is none.

Allocations: equal shares; one budget over all layers with the score as it is ("output"),
standardised, with a floor of a tenth of each layer; the same with the error counted in what it
costs the loss, by one number a layer ("loss_scalar") or by direction ("loss"); "measured": each
layer's damage curve. Refits: none ("cut"), from the dense model's statistics ("refit"), or layer by
layer behind the ones cut before ("sequential").

Beside them, on the real model, the peers that are installed (`pip install -c constraints.txt -e
".[bench]"`): optipfair by its own score, static and with the same calibration data, and
Torch-Pruning by magnitude; equal shares, no refit, which is what they do.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib.util
import itertools
import json
import math
import os
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import harness
import pandas as pd
import torch

import gumlab as gl
from gumlab.allocation import DamageCurves
from gumlab.collecting import CURRENCIES, Statistics, collect, currencies
from gumlab.feedforward import neurons
from gumlab.removal import refit_layer
from gumlab.scoring import DATA_SCORES, MEASURE_OUTPUT, random_scores
from gumlab.study.intervals import half_interval
from gumlab.study.paper import REAL_ONE_SHOT
from gumlab.tasks.batches import collated, context_length, encode, is_running_text, token_losses

REAL = "smollm2-135m"
BOTH = ("restaurants", "tables")
TINY = {  # the tasks that a base was trained on
    "tiny-gpt-neo": BOTH,
    "tiny-gpt2": BOTH,
    "tiny-llama": BOTH,
    "tiny-twins": BOTH,
    "tiny-wide": ("tables",),
}
DRAWS = range(3)
KEEPS = (0.5, 0.75, 0.25, 0.9)
TINY_KEEPS = (0.5, 0.25)
BLOCKS = 14  # of running text, for calibration
TEST_BLOCKS = 8
FLOOR = 0.1
MAIN = ("equal", "loss_scalar")
OTHERS = ("standardised", "floor", "equal, loss")
RECIPES = ("greedy_obs",)  # the score of every one-shot recipe that could be recommended
SCORES = (*RECIPES, "wanda", "flap", "obs", "peak_to_peak", "magnitude", "random")


DENSE = "dense"
REFITS = ("cut", "refit", "sequential")
# what the figure shows, and calls it
SHOWN = {
    "equal": "equal shares",
    "output": "one budget, raw error",
    "loss_scalar": "one budget, in the loss (one number a layer)",
    "loss": "one budget, in the loss (by direction)",
}
LAYERS = {"equal": "equal shares", "loss_scalar": "one budget, priced"}  # in the reference table
REFERENCE_REFITS = {"refit": "once", "sequential": "layer by layer", "cut": "none"}
NOISE = 1000  # perplexity, above which nobody need know which
PERPLEXITIES = (20, 30, 40, 50, 70, 100, 200, 500, 1000, 10_000)  # ticks of the figure

# peers, with whether what they do depends on the draw of the calibration data
PEERS = {"optipfair, static": False, "optipfair, data": True, "Torch-Pruning, magnitude": False}
PACKAGES = {"optipfair": "optipfair", "Torch-Pruning": "torch_pruning"}


@dataclass(frozen=True)
class Order:
    """One row to measure."""

    base: str
    task: str
    draw: int
    score: str
    allocation: str
    refit: str
    keep: float

    @property
    def name(self) -> str:
        return "-".join(str(value) for value in vars(self).values()).replace("/", "_")


def orders(base: str, task: str, draws: range) -> list[Order]:
    """What is measured of a setting, the most telling first."""
    real = base == REAL
    found = [
        Order(base, task, draw, score, allocation, refit, keep)
        for keep, draw, score in itertools.product(
            KEEPS if real else TINY_KEEPS, draws, SCORES if real else RECIPES
        )
        for allocation in allocations(score)
        if real or allocation not in OTHERS
        for refit in refits(score, allocation, real)
    ]
    if real:
        found += [  # sorted below: with the recipes' cuts
            Order(base, task, draw, peer, "equal", "cut", keep)
            for keep, draw, peer in itertools.product(KEEPS, draws, PEERS)
            if PEERS[peer] or draw == draws[0]
        ]
    dense = Order(base, task, draws[0], DENSE, "equal", "cut", 1.0)
    return [dense, *sorted(found, key=turn)]


def peers_at_hand() -> list[str]:
    """The peers whose packages are installed."""
    return [peer for peer in PEERS if importlib.util.find_spec(PACKAGES[peer.split(",")[0]])]


def turn(order: Order) -> tuple[Any, ...]:
    """The key that sorts orders, the most telling first.

    The recipes' main allocations at a half and three quarters; every score at a half, in equal
    shares and priced; the recipes at the other keeps; every score there; the rest. What takes
    longest comes last: the damage curves, and the refit layer by layer but for the main allocations
    at a half.
    """
    is_main = order.allocation in MAIN
    is_recipe = order.score in RECIPES
    if order.allocation == "measured" or (
        order.refit == "sequential" and not (is_main and order.keep == KEEPS[0])
    ):
        tier = 5
    elif is_recipe and order.keep in KEEPS[:2] and order.allocation not in OTHERS:
        tier = 0
    elif is_main and order.keep == KEEPS[0]:
        tier = 1
    elif is_recipe and order.allocation not in OTHERS:
        tier = 2
    elif is_main:
        tier = 3
    else:
        tier = 4
    return tier, KEEPS.index(order.keep) if tier > 1 else 0, order.draw, order.refit == "cut"


def allocations(score: str) -> tuple[str, ...]:
    """The ways to share out the budget that a score can go; the less likely ones with recipes."""
    if score in RECIPES:
        return ("equal", "loss_scalar", "loss", "output", "measured", *OTHERS)
    if score in MEASURE_OUTPUT:
        return ("equal", "loss_scalar", "loss", "output")
    return ("equal",) if score == "random" else ("equal", "output")


def refits(score: str, allocation: str, real: bool) -> tuple[str, ...]:
    """All refits on the real model; the slow one, layer by layer, of every score in the main
    allocations and of recipes in most.
    """
    if not real:
        return ("refit",)
    is_recipe = score in RECIPES and allocation not in OTHERS
    if is_recipe or allocation in MAIN:
        return ("refit", "sequential", "cut")
    return ("refit", "cut")


class Draw:
    """A base, its test data, and all that one draw of the calibration data says of it."""

    def __init__(self, base: str, task_name: str, number: int, args: Any) -> None:
        data_dir = args.data_dir
        self.cache = args.runs / "allocation" / f"{base}-{task_name}-{number}"
        self.model, self.tokenizer = gl.load(base, device="cpu")
        self.layers = neurons(self.model)
        task = gl.load_task(task_name, data_dir if task_name == "wikitext" else None)
        self.running = is_running_text(task.train or task.validation)
        if self.running:
            calibration, test = wikitext_parts(task)
            random.Random(number).shuffle(calibration)
            self.options = {"limit": None, "tokens": BLOCKS * 1024, "batch_size": 2}
        else:
            calibration = random.Random(number).sample(task.train, 256)
            test = task.test[:200]
            self.options = {"limit": None, "batch_size": 16}
        self._found: dict[str, Any] = {}
        self.calibration = calibration
        self.number = number
        rows = encode(self.tokenizer, test, context_length(self.model))
        self.rows = rows[:TEST_BLOCKS] if self.running else rows
        self.precision = args.precision if self.running else "float32"

    def once(self, name: str, measure: Callable[[], Any]) -> Any:
        """What was measured under this name, in this process or, on the real model, before it."""
        path = self.cache / f"{name}.pt"
        if name not in self._found:
            if path.exists():
                with torch.serialization.safe_globals([Statistics, DamageCurves]):
                    self._found[name] = torch.load(path, weights_only=True)
            else:
                self._found[name] = measure()
                if self.running:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    torch.save(self._found[name], path.with_suffix(".part"))
                    os.replace(path.with_suffix(".part"), path)
        return self._found[name]

    @property
    def statistics(self) -> list[Statistics]:
        """The sums over the calibration data."""
        return self.once(
            "statistics",
            lambda: collect(self.model, self.tokenizer, self.calibration, **self.options),
        )

    def prices(self, currency: str) -> list[Any]:
        """What an error costs in each layer."""
        return self.once(
            currency,
            lambda: currencies(
                self.model, self.tokenizer, self.calibration, currency, **self.options
            ),
        )

    def scores(self, name: str, currency: str) -> list[torch.Tensor]:
        """A score of every neuron."""
        return self.once(f"{name}-{currency}", lambda: self._measured_scores(name, currency))

    def _measured_scores(self, name: str, currency: str) -> list[torch.Tensor]:
        if name == "random":
            return random_scores(self.layers, self.number)
        if name not in DATA_SCORES:
            return gl.score(self.model, name)
        if name == "greedy_obs" and currency == "loss_scalar":  # the same order, at another price
            prices = self.prices(currency)
            raw = self.scores(name, "output")
            return [score * price**2 for score, price in zip(raw, prices, strict=True)]
        found = []
        for layer, seen, price in zip(
            self.layers, self.statistics, self.prices(currency), strict=True
        ):
            seen.currency = price
            found.append(DATA_SCORES[name](layer, seen))
        return found

    @property
    def curves(self) -> DamageCurves:
        """What each layer alone does to the loss."""
        return self.once(
            "curves",
            lambda: gl.damage_curves(
                self.model,
                self.scores("greedy_obs", "output"),
                self.tokenizer,
                self.calibration if self.running else self.calibration[:64],
                **{**self.options, **({"tokens": 4 * 1024} if self.running else {})},
            ),
        )

    def masks(self, order: Order) -> list[torch.Tensor]:
        """Who stays."""
        wanted = order.allocation.removeprefix("equal, ")
        currency = wanted if wanted in CURRENCIES else "output"
        scores = self.scores(order.score, currency)
        if order.allocation.startswith("equal"):
            return gl.select(scores, order.keep)
        if order.allocation == "measured":
            return gl.select(scores, widths=self.curves.split(order.keep))
        floor = max(1, round(FLOOR * min(len(s) for s in scores)))
        return gl.select(
            scores,
            order.keep,
            "global",
            standardise=order.allocation == "standardised",
            floor=floor if order.allocation == "floor" else 1,
        )

    def row(self, order: Order) -> dict[str, Any]:
        """The loss of one cut."""
        if order.score == DENSE:
            return self.measured(order, self.model)
        if order.score in PEERS:
            return self.measured(order, self.by_peer(order.score, order.keep))
        masks = self.masks(order)
        if order.refit == "sequential":
            small = gl.shrink(
                self.model, masks, self.tokenizer, self.calibration, refit=True, **self.options
            )
        else:
            small = self.cut(masks, refit=order.refit == "refit")
        return self.measured(order, small)

    def measured(self, order: Order, small: Any) -> dict[str, Any]:
        """The row of a smaller model."""
        nats, tokens = self.nats(small)
        widths = [layer.width for layer in neurons(small)]
        return {
            **vars(order),
            "loss": nats / tokens,
            "nats": nats,
            "tokens": tokens,
            "words": self.words if self.running else None,
            "precision": self.precision,
            "widths": widths,
        }

    def by_peer(self, peer: str, keep: float) -> Any:
        """A copy of the model that a peer made smaller."""
        model = copy.deepcopy(self.model)
        if peer.startswith("optipfair"):
            import optipfair

            batches = None
            if PEERS[peer]:
                rows = encode(self.tokenizer, self.calibration, context_length(self.model))
                batches = list(collated(self.model, rows[:BLOCKS], 2))
            return optipfair.prune_model(
                model,
                neuron_selection_method="MAW",
                pruning_percentage=100 * (1 - keep),
                dataloader=batches,
                show_progress=False,
            )
        import torch_pruning

        attention = [m for layer in model.model.layers for m in layer.self_attn.children()]
        ends = [layer.mlp.down_proj for layer in model.model.layers]
        torch_pruning.pruner.MagnitudePruner(
            model,
            {"input_ids": torch.ones(1, 8, dtype=torch.long), "use_cache": False},
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=1 - keep,
            ignored_layers=[model.lm_head, *attention, *ends],
            output_transform=lambda out: out.logits,
        ).step()
        for layer in model.model.layers:
            layer.mlp.intermediate_size = layer.mlp.up_proj.out_features
        return model

    def cut(self, masks: list[torch.Tensor], refit: bool) -> Any:
        """A smaller copy; the refit is by the sums at hand, and the model gets its weights back."""
        kept = [
            (parameter, parameter.detach().clone())
            for layer in self.layers
            for parameter in (layer.proj.weight, layer.proj.bias)
            if parameter is not None
        ]
        try:
            if refit:
                for layer, mask, seen in zip(self.layers, masks, self.statistics, strict=True):
                    refit_layer(layer, mask, seen)
            return gl.shrink(self.model, masks)
        finally:
            with torch.no_grad():
                for parameter, value in kept:
                    parameter.copy_(value)

    @torch.no_grad()
    def nats(self, model: Any) -> tuple[float, int]:
        """The loss of all test tokens, and how many they are."""
        total, count = 0.0, 0
        in_bf16 = self.precision == "bf16"
        for batch in collated(model, self.rows, 4 if self.running else 16):
            labels = batch.pop("labels")
            with torch.autocast("cpu", torch.bfloat16, enabled=in_bf16):
                logits = model(**batch).logits
            total += float(token_losses(logits, labels).sum())
            count += int((labels[:, 1:] >= 0).sum())
        return total, count

    @functools.cached_property
    def words(self) -> int:
        """The words of the test tokens that are predicted, by white space."""
        texts = [self.tokenizer.decode(ids[max(1, start) :]) for ids, start in self.rows]
        return sum(len(text.split()) for text in texts)


def wikitext_parts(task: Any) -> tuple[list[Any], list[Any]]:
    """Calibration and test: the splits, or of validation alone the first 64 and the last 27 %."""
    if task.train and task.test:
        return list(task.train), list(task.test)
    passages = list(task.validation)
    return passages[: round(0.64 * len(passages))], passages[-round(0.27 * len(passages)) :]


def measured(args: Any, todo: list[Order]) -> pd.DataFrame:
    """The rows of the orders; those at hand, in runs/ or in the last report, are not done again."""
    folder = args.runs / "allocation"
    folder.mkdir(parents=True, exist_ok=True)
    reported = reported_rows(args.out / "allocation.csv")
    asked = {order.name for order in todo}
    missing = [
        order
        for order in todo
        if order.name not in reported and not (folder / f"{order.name}.json").exists()
    ]
    at_hand = peers_at_hand()
    left_out = [o for o in missing if args.report or (o.score in PEERS and o.score not in at_hand)]
    todo = [order for order in todo if order not in left_out]
    missing = [order for order in missing if order not in left_out]
    draw, of = None, None
    for number, order in enumerate(missing):
        if of != (order.base, order.task, order.draw):
            draw, of = None, (order.base, order.task, order.draw)  # the old one goes first
            draw = Draw(*of, args)
        row = draw.row(order)
        path = folder / f"{order.name}.json"
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps(row), encoding="utf-8")
        os.replace(unfinished, path)
        print(
            f"{number + 1} of {len(missing)}: {order.name}: {math.exp(row['loss']):.2f}", flush=True
        )
    rows = []
    for order in todo:
        path = folder / f"{order.name}.json"
        rows.append(
            json.loads(path.read_text(encoding="utf-8")) if path.exists() else reported[order.name]
        )
    others = [row for name, row in reported.items() if name not in asked]  # of other settings
    table = pd.DataFrame([*rows, *others])
    table["precision"] = table["precision"].fillna("float32") if "precision" in table else "float32"
    return table


def both_ways(args: Any) -> pd.DataFrame:
    """The loss in float32 and in bfloat16 of the same cuts of the real model: in its first draw,
    at a half, refitted, in equal shares and priced.
    """
    draw, rows = Draw(REAL, "wikitext", DRAWS[0], args), []
    for order in orders(REAL, "wikitext", DRAWS[:1]):
        is_main = order.allocation in MAIN
        if not (is_main and order.keep == KEEPS[0] and order.refit == "refit"):
            continue
        small = draw.cut(draw.masks(order), refit=True)
        losses = {}
        for draw.precision in ("float32", "bf16"):
            nats, tokens = draw.nats(small)
            losses[draw.precision] = nats / tokens
        rows.append({**vars(order), **losses})
        print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def told_of_precision(rows: pd.DataFrame, path: Path) -> str:
    """How much bfloat16 moves the loss of a row, or that this was not measured; of rows in it."""
    if not (rows["precision"] == "bf16").any():
        return ""
    mixed = f"Part of the rows of `{REAL}` were measured in bfloat16 (column precision of "
    if not path.exists():
        return (
            f"{mixed}allocation.csv); how far that moves a row (--both-ways) was not measured.\n\n"
        )
    table = pd.read_csv(path)
    moved = (table["bf16"] / table["float32"] - 1).abs()
    return (
        f"{mixed}allocation.csv). {len(table)} rows measured both ways differ in the loss by "
        f"{moved.median():.3%} in the median and {moved.max():.3%} at the most.\n\n"
    )


def reported_rows(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of a report, by the names of their orders."""
    if not path.exists():
        return {}
    rows = pd.read_csv(path).to_dict("records")
    fields = [field.name for field in dataclasses.fields(Order)]
    return {Order(**{field: row[field] for field in fields}).name: row for row in rows}


def by_setting(table: pd.DataFrame) -> str:
    """A table for each setting and keep: rows score and allocation, columns the refits."""
    parts = []
    for (base, task, keep), cell in table.groupby(["base", "task", "keep"], sort=False):
        rows = []
        for (score, allocation), mine in cell.groupby(["score", "allocation"], sort=False):
            row = {"score": score, "allocation": allocation}
            for refit in REFITS:
                runs = mine[mine["refit"] == refit]
                row[refit] = perplexities(runs) if len(runs) else ""
            rows.append(row)
        parts.append(f"## {base}, {task}, {keep:.0%} kept\n\n{harness.markdown(rows)}")
    return "\n".join(parts)


def reference(table: pd.DataFrame) -> list[dict[str, str]]:
    """The real model's perplexity by token: rows score, layers and refit, columns neurons kept."""
    ours = table[(table["base"] == REAL) & table["allocation"].isin(LAYERS)]
    ours = ours[ours["score"] != DENSE]
    rows = []
    for (score, allocation, refit), mine in ours.groupby(
        ["score", "allocation", "refit"], sort=False
    ):
        row = {"score": score, "layers": LAYERS[allocation], "refit": REFERENCE_REFITS[refit]}
        for keep in sorted(KEEPS, reverse=True):
            runs = mine[mine["keep"] == keep]
            row[f"{keep:.0%}"] = with_interval(runs["loss"].map(math.exp)) if len(runs) else ""
        rows.append(row)
    order = [*SCORES, *PEERS]
    refits = list(REFERENCE_REFITS.values())
    return sorted(rows, key=lambda row: (refits.index(row["refit"]), order.index(row["score"])))


def with_interval(perplexity: pd.Series) -> str:
    """The mean over the draws with half of its 95 % interval; what is noise is called so."""
    if perplexity.mean() > NOISE:
        return f"over {NOISE:,}"
    text = f"{perplexity.mean():.1f}"
    return f"{text} +- {half_interval(perplexity):.1f}" if len(perplexity) > 1 else text


def perplexities(runs: pd.DataFrame) -> str:
    """By token, by word where the text is running, and the loss with its interval."""
    text = f"{runs['loss'].map(math.exp).mean():.4g}"
    if runs["words"].notna().all():
        by_word = (runs["nats"] / runs["words"]).map(lambda nats: math.exp(min(nats, 700))).mean()
        text += f", by word {by_word:.4g}"
    text += f" (loss {runs['loss'].mean():.3f}"
    if len(runs) > 1:
        text += f" +- {half_interval(runs['loss']):.3f}"
    return f"{text})"


def told_of_reference(table: pd.DataFrame) -> str:
    """The reference table and what it shows, where the real model was measured."""
    rows = reference(table)
    if not rows:
        return ""
    (dense,) = table.loc[(table["base"] == REAL) & (table["score"] == DENSE), "loss"]
    return (
        f"## {REAL}, WikiText-2: every score\n\nPerplexity by token, mean over the draws +- half "
        f"of a 95 % interval; dense {math.exp(dense):.1f}. What does not depend on the draw stands "
        f"alone. Priced: by what an error costs the loss, one number a layer.\n\n"
        f"{harness.markdown(rows)}\n"
    )


def against_equal(table: pd.DataFrame) -> pd.DataFrame:
    """Recipes beside equal shares: a row per setting, keep and allocation, paired by draw.

    Parameters
    ----------
    table : pandas.DataFrame
        A row per run, with the columns of `Order` and loss.

    Returns
    -------
    pandas.DataFrame
        base, task, keep, allocation, loss (its mean), difference (of the loss, less that of equal
        shares), half (half its 95 % interval), draws.
    """
    recipes = table[(table["score"].isin(RECIPES)) & (table["refit"] == "refit")]
    rows = []
    for (base, task, keep), cell in recipes.groupby(["base", "task", "keep"], sort=False):
        by_draw = cell.pivot(index="draw", columns="allocation", values="loss")
        for allocation in by_draw:
            difference = (by_draw[allocation] - by_draw["equal"]).dropna()
            rows.append(
                {
                    "base": base,
                    "task": task,
                    "keep": keep,
                    "allocation": allocation,
                    "loss": by_draw[allocation].mean(),
                    "difference": difference.mean(),
                    "half": half_interval(difference),
                    "draws": len(difference),
                }
            )
    return pd.DataFrame(rows)


def decision(table: pd.DataFrame) -> pd.DataFrame:
    """The rule: never worse than equal shares beyond the interval, and best where most are.

    Parameters
    ----------
    table : pandas.DataFrame
        As in `against_equal`.

    Returns
    -------
    pandas.DataFrame
        A row per allocation, the recommended one first: settings (base, task and keep), worse and
        better (than equal shares beyond the interval), best (lowest mean loss of all in a setting),
        recommended.
    """
    beside = against_equal(table)
    beside = beside[beside["draws"] > 1]
    place = ["base", "task", "keep"]
    there = beside[beside["allocation"].isin(SHOWN)].groupby(place)["allocation"].count()
    complete = there[there == len(SHOWN)].index
    beside = beside[beside.set_index(place).index.isin(complete)]
    lowest = beside.groupby(place)["loss"].transform("min")
    told = beside.assign(
        worse=beside["difference"] > beside["half"],
        better=beside["difference"] < -beside["half"],
        best=beside["loss"] == lowest,
    )
    told = told[told["allocation"] != "equal, loss"]
    counts = told.groupby("allocation").agg(
        settings=("loss", "size"),
        worse=("worse", "sum"),
        better=("better", "sum"),
        best=("best", "sum"),
        mean=("difference", "mean"),
    )
    counts = counts.sort_values(["worse", "best", "mean"], ascending=[True, False, True])
    never_worse = counts.index[counts["worse"] == 0]
    return counts.assign(recommended=counts.index == never_worse[0]).reset_index()


def draw_figure(table: pd.DataFrame) -> Any:
    """Left: the real model's perplexity by what is kept. Right: every base beside equal shares."""
    from gumlab.course.plots.figure import STYLES, new_figure

    figure, (left, right) = new_figure(2, width=10.5, height=3.8)
    beside = against_equal(table)
    shown = [name for name in SHOWN if name in set(beside["allocation"])]
    for allocation, style in zip(shown, STYLES, strict=False):
        real = beside[(beside["base"] == REAL) & (beside["allocation"] == allocation)]
        real = real.sort_values("keep")
        left.plot(
            real["keep"], real["loss"].map(math.exp), style.fmt, color=style.colour,
            label=SHOWN[allocation],
        )  # fmt: skip
    left.set(yscale="log", xlabel="neurons kept", ylabel="perplexity", title=REAL)
    ticks = [tick for tick in PERPLEXITIES if left.get_ylim()[0] <= tick <= left.get_ylim()[1]]
    left.set_yticks(ticks, [f"{tick:,}" for tick in ticks])
    left.minorticks_off()
    left.legend(frameon=False, fontsize=8)
    settings = beside[["base", "task"]].drop_duplicates()
    names = [f"{base}, {task}" for base, task in settings.itertuples(index=False)]
    at_half = beside[beside["keep"] == 0.5]
    others = [name for name in shown if name != "equal"]
    for number, allocation in enumerate(others):
        style = STYLES[shown.index(allocation)]
        mine = at_half[at_half["allocation"] == allocation]
        places = [
            names.index(f"{base}, {task}") + 0.15 * (number - len(others) / 2)
            for base, task in zip(mine["base"], mine["task"], strict=True)
        ]
        right.errorbar(
            mine["difference"], places, xerr=mine["half"], fmt=style.marker, color=style.colour,
            ms=4, lw=1,
        )  # fmt: skip
    right.axvline(0, color="grey", lw=0.8, ls="--")
    right.set_yticks(range(len(names)), names, fontsize=7)
    right.set_xscale("symlog", linthresh=0.01)
    right.set(xlabel="loss less that of equal shares, 50 % kept")
    return figure


def main() -> None:
    parser = harness.grid_options(__doc__, data="WikiText's folder; without it the tiny bases only")
    parser.add_argument("--only", help="one base")
    parser.add_argument(
        "--precision",
        choices=("float32", "bf16"),
        default="float32",
        help="of the test passes of the real model (default: float32)",
    )
    parser.add_argument(
        "--both-ways", action="store_true", help="float32 against bf16: allocation_precision.csv"
    )
    parser.add_argument("--report", action="store_true", help="report what is there")
    args = harness.parsed(parser)
    precision = args.out / "allocation_precision.csv"
    if args.both_ways:
        both_ways(args).to_csv(precision, index=False, float_format="%.6g")
        return
    settings = [(base, task) for base, tasks in TINY.items() for task in tasks]
    if args.data_dir:
        settings.append((REAL, "wikitext"))
    if args.only:
        settings = [setting for setting in settings if setting[0] == args.only]
    draws = range(1) if args.quick else DRAWS
    todo = [order for setting in settings for order in orders(*setting, draws)]
    if args.quick:
        todo = [order for order in todo if order.keep == KEEPS[0]][:3]
    table = measured(args, todo)
    table.to_csv(args.out / "allocation.csv", index=False)
    if not args.quick:
        real = table[table["base"] == REAL].drop(columns=["base", "task"])
        real.to_csv(REAL_ONE_SHOT, index=False, float_format="%.6g")
    harness.write(
        args,
        "allocation.md",
        f"# One budget over the layers, in which currency\n\n{harness.made_by(args.command)} "
        "Greedy OBS and the refit, by the way the budget is shared out. A setting is a base, a "
        "task and a fraction kept; better and worse than equal shares are beyond the 95 % interval "
        "of the difference, paired by draw. The rule, fixed before the runs: recommended is the "
        "allocation that is worse nowhere, and of those the one that is best most often.\n\n"
        f"{harness.markdown(decision(table).round(4).to_dict('records'))}\n"
        "![Allocations on a real model and on tiny ones](allocation.png)\n\n"
        f"{told_of_reference(table)}"
        "Below: perplexity by token, of running text also by word, and the loss; means over the "
        "draws, +- is half of a 95 % t interval.\n\n"
        f"{told_of_precision(table, precision)}{by_setting(table)}",
    )
    harness.save_figure(args, "allocation.png", draw_figure(table))


if __name__ == "__main__":
    main()
