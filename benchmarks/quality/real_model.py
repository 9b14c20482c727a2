"""Training-time methods on a real language model, SmolLM2-135M: results/real_model.md.

    gumlab fetch smollm2-135m
    python benchmarks/quality/real_model.py --data-dir FOLDER --tune   # the knobs, on validation
    python benchmarks/quality/real_model.py --data-dir FOLDER          # WikiText's folder
    python benchmarks/quality/real_model.py --data-dir FOLDER --keep 0.25

Every method gets the same weights, steps, batches (by seed) and optimiser, and three trials on
another seed, at half the steps, on validation text: of the learning rate, and where a method has a
knob of its own, of two learning rates and that. The control "random at GUM's widths" keeps as many
neurons of each layer as the GUM run of its seed, and is trained as random is; "L1 as hard as GUM"
presses on all neurons of a layer by GUM's mean there, and is trained as GUM is. The teacher is the
dense run of the pupil's seed and learning rate. At another fraction than a half every method but
the dense one has the settings that were chosen at a half, and nothing is distilled; the runs of
other fractions stay in the report. A `gumlab.Study` in runs/: stopped, it goes on where it was.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import harness
import pandas as pd
import torch
from allocation import wikitext_parts

import gumlab as gl
from gumlab.scoring import mean_similarity
from gumlab.study import Method
from gumlab.study.intervals import compared
from gumlab.study.paper import REAL
from gumlab.tasks.batches import token_stream

BASE = "smollm2-135m"
STEPS = 40
BLOCK = 256
BATCH = 2
CONTEXT = 1024
TEST_BLOCKS = 8  # of so many tokens
VALIDATION_BLOCKS = 4
CALIBRATION = 6 * CONTEXT  # tokens that one-shot scores and refits see
TUNING_CALIBRATION = 14 * CONTEXT  # more than twice as many, which the learning rate does not mind
KEEP = 0.5
SEEDS = range(3)
TUNING_SEED = 100
TUNING_STEPS = 20


def mean_over_the_layer(gram: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """GUM's mean |cosine| of a layer's neurons, the same for each of them, (N,)."""
    similarity = mean_similarity(gram, kept)
    return similarity.mean().expand_as(similarity)


RATES = [{"lr": lr} for lr in (2e-4, 5e-4, 1e-3)]
SCORE_RATES = [
    {"lr": 2e-4, "score_lr": 0.01},
    {"lr": 5e-4, "score_lr": 0.01},
    {"lr": 5e-4, "score_lr": 0.03},
]
PENALTIES = [
    {"lr": 2e-4, "penalty": 0.3},
    {"lr": 5e-4, "penalty": 0.3},
    {"lr": 5e-4, "penalty": 1.0},
]
EVERYWHERE = {"scope": "global"}
DENSE = Method("dense")
RANDOM = Method("random", "random")
MAGNITUDE = Method("magnitude", "magnitude")
GUM = Method("GUM", "gum")
ONE_SHOT = Method(
    "one shot, then healing",
    "greedy_obs",
    {"scope": "global", "currency": "loss_scalar"},
    one_shot=True,
)
# each method, and the three settings that it is tried with
TRIED = (
    (DENSE, RATES),
    (RANDOM, RATES),
    (MAGNITUDE, RATES),
    (Method("movement, local", "movement"), SCORE_RATES),
    (Method("movement, global", "movement", EVERYWHERE), SCORE_RATES),
    (GUM, PENALTIES),
    (Method("GUM, lambda_gum = 0", "gum", {"lambda_gum": 0.0}), PENALTIES),
    (ONE_SHOT, RATES),
)
# controls: they are to differ from another method in one thing
PRESSING = Method("L1 as hard as GUM", "gum", {"similarity": mean_over_the_layer})
CONTROL = Method("random at GUM's widths", "random")
TAUGHT = (RANDOM, GUM, ONE_SHOT)
OF_TRAINING = ("lr",)
# columns that say the same of every run, or what labels say
UNTOLD = (
    *harness.MADE_WITH, "context", "stride", "precision", "block", "currency", "scope",
    "lambda_gum", "similarity", "penalty", "score_lr", "widths_of", "one_shot",
)  # fmt: skip


def setting(args: Any, **more: Any) -> dict[str, Any]:
    """What all runs have in common."""
    return {
        "model": args.base,
        "task": "wikitext",
        "batch_size": BATCH,
        "block": BLOCK,
        "precision": "bf16",
        "stride": CONTEXT - 1 if args.base == BASE else None,  # blocks, one token over the other
        "tokens": CALIBRATION,
        "redundancy_tokens": 2048,
        "generated": 0,
        **more,
    }


def with_settings(method: Method, settings: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The part of a grid for a method with settings of the training and of its own."""
    own = {key: value for key, value in settings.items() if key not in OF_TRAINING}
    training = {key: value for key, value in settings.items() if key in OF_TRAINING}
    chosen = replace(method, options={**method.options, **own})
    return {**more, **training, "method": chosen}


def trials(args: Any) -> list[dict[str, Any]]:
    """Three settings of each method, labelled with them, at half of the steps."""
    common = setting(
        args,
        keep=KEEP,
        seed=TUNING_SEED,
        steps=TUNING_STEPS,
        split="validation",
        tokens=TUNING_CALIBRATION,
    )
    return [
        with_settings(replace(method, label=f"{method.label} {json.dumps(one)}"), one, **common)
        for method, settings in TRIED
        for one in settings
    ]


def best_settings(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """By method, the setting of the trial with the lowest loss; methods with all trials done."""
    best = {}
    for method, settings in TRIED:
        losses = {}
        for number, one in enumerate(settings):
            is_trial = table["method"] == f"{method.label} {json.dumps(one)}"
            if method is DENSE:  # whose runs have no label of their own
                is_trial = (table["method"] == DENSE.label) & (table["lr"] == one["lr"])
            mine = table[is_trial]
            if len(mine):
                losses[number] = float(mine["loss"].iloc[0])
        if len(losses) == len(settings):
            best[method.label] = settings[min(losses, key=losses.__getitem__)]
    return best


def grids(args: Any, best: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Every method, seed by seed; the dense run, which is the same everywhere, with KEEP alone."""
    todo = []
    for seed in SEEDS:
        common = setting(args, keep=args.keep, seed=seed, steps=STEPS)
        todo += [
            with_settings(method, best[method.label], **common)
            for method, _ in TRIED
            if method.label in best and (method is not DENSE or args.keep == KEEP)
        ]
        todo.append(with_settings(PRESSING, best[GUM.label], **common))
    return todo


def taught(args: Any, best: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """What also learns from the dense model, seed by seed; at KEEP alone."""
    if args.keep != KEEP:
        return []
    return [
        with_settings(
            method,
            best[method.label],
            **setting(args, keep=KEEP, seed=seed, steps=STEPS, distil=True),
        )
        for seed in SEEDS
        for method in TAUGHT
        if method.label in best
    ]


def controls(
    args: Any, best: dict[str, dict[str, Any]], table: pd.DataFrame
) -> list[dict[str, Any]]:
    """Random neurons, as many in each layer as GUM's run of the seed has, trained as random is."""
    is_gum = (table["method"] == GUM.label) & ~table["distilled"]
    runs = table[is_gum & (table["asked"] == args.keep)]
    return [
        with_settings(
            replace(CONTROL, options={"widths": list(row.widths)}),
            best[RANDOM.label],
            **setting(args, keep=args.keep, seed=int(row.seed), steps=STEPS),
        )
        for row in runs.itertuples()
    ]


def reported(path: Path, but: pd.Series) -> pd.DataFrame:
    """The last report's runs of other fractions than those in `but`."""
    if not path.exists():
        return pd.DataFrame()
    rows = pd.read_csv(path)
    return rows[~rows["asked"].isin(but)].assign(widths=lambda rows: rows["widths"].map(json.loads))


def text_folder(args: Any) -> Path:
    """WikiText as the study takes it: so many blocks of validation and test that a run is short."""
    folder = args.runs / f"text-of-{Path(args.base).name}"  # cut by the base's own tokens
    if folder.exists():
        return folder
    _, tokenizer = gl.load(args.base, device="cpu")
    task = gl.load_task("wikitext", args.data_dir)
    train, test = wikitext_parts(task)
    between = task.validation[len(train) : -len(test)] if not task.train else task.validation
    unfinished = folder.with_suffix(".part")
    unfinished.mkdir(parents=True, exist_ok=True)
    for name, passages, blocks in (
        ("train", train, None),
        ("valid", between, VALIDATION_BLOCKS),
        ("test", test, TEST_BLOCKS),
    ):
        text = "".join(passage.target for passage in passages)
        if blocks is not None:
            text = tokenizer.decode(token_stream(tokenizer, passages)[: CONTEXT * blocks])
        (unfinished / f"{name}.txt").write_text(text, encoding="utf-8")
    return unfinished.rename(folder)


def measured(args: Any, name: str, todo: list[dict[str, Any]]) -> pd.DataFrame:
    """The table of a study, or what there is of it."""
    if args.report:
        return gl.Study(todo, args.runs / name, data_dir=args.data_dir).table()
    return harness.finished(args, name, todo)


COMPARED = (
    ("random", "magnitude"),
    ("GUM", "random"),
    ("GUM", "random at GUM's widths"),
    ("random at GUM's widths", "random"),
    ("GUM", "movement, global"),
    ("GUM", "GUM, lambda_gum = 0"),
    ("GUM", "L1 as hard as GUM"),
    ("movement, global", "movement, local"),
    ("one shot, then healing", "GUM"),
)


def summary(table: pd.DataFrame) -> str:
    """Perplexity and loss of each method, best first, by fraction kept."""
    parts = []
    for keep, cell in table.groupby("asked", sort=False):
        rows = []
        for (method, distilled), runs in cell.groupby(["method", "distilled"]):
            row = {
                "method": method,
                "distilled": "yes" if distilled else "no",
                "seeds": len(runs),
                "perplexity": f"{runs['loss'].map(math.exp).mean():.4g}",
                "loss": harness.mean_text(runs["loss"]),
                "sensitivity": f"{runs['sensitivity'].mean():.2e}",
                "uniqueness": f"{runs['uniqueness'].mean():.3f}",
                "narrowest layer": min(min(widths) for widths in runs["widths"]),
                "minutes": f"{runs['seconds'].mean() / 60:.1f}",
            }
            rows.append((runs["loss"].mean(), row))
        ranked = [row for _, row in sorted(rows, key=lambda pair: pair[0])]
        parts.append(f"## {keep:.0%} kept\n\n{harness.markdown(ranked)}")
    return "\n".join(parts)


def differences(table: pd.DataFrame) -> str:
    """Pairs of methods, paired by seed, and with against without a teacher."""
    rows = []
    for keep, cell in table.groupby("asked", sort=False):
        alone = cell[~cell["distilled"]]
        for pair in COMPARED:
            if set(pair) <= set(alone["method"]):
                rows.append({"kept": f"{keep:.0%}", **compared(alone, *pair)})
        named = cell.assign(
            method=cell["method"] + cell["distilled"].map({True: ", distilled", False: ""})
        )
        for method in cell[cell["distilled"]]["method"].unique():
            rows.append({"kept": f"{keep:.0%}", **compared(named, f"{method}, distilled", method)})
    return harness.markdown(rows)


def report(base: str, command: str, table: pd.DataFrame, best: dict[str, dict[str, Any]]) -> str:
    """results/real_model.md."""
    chosen = [{"method": label, "chosen": json.dumps(one)} for label, one in best.items()]
    return (
        f"# Pruning a real language model while it trains: {STEPS} steps of {BATCH} x {BLOCK} "
        f"tokens\n\nBase `{base}`, WikiText-2; loss per token of {TEST_BLOCKS} blocks of test "
        f"text. {harness.made_by(command, table)} Fractions other than {KEEP:.0%}: the same with "
        f"--keep. +- is the standard deviation over the seeds.\n\n"
        f"{summary(table)}\n## Differences of the loss, paired by seed, with 95 % t intervals\n\n"
        f"{differences(table)}\n## Settings chosen on seed {TUNING_SEED}, with {KEEP:.0%} kept\n\n"
        f"{harness.markdown(chosen)}"
    )


def main() -> None:
    parser = harness.grid_options(__doc__, data="WikiText's folder")
    parser.add_argument("--base", default=BASE, help=f"another base (default: {BASE})")
    parser.add_argument(
        "--keep", type=float, default=KEEP, help=f"fraction of the neurons (default: {KEEP})"
    )
    parser.add_argument("--tune", action="store_true", help="the knobs, on the validation split")
    parser.add_argument("--report", action="store_true", help="report what is there")
    args = harness.parsed(parser)
    if args.tune and args.keep != KEEP:
        sys.exit(f"--tune chooses the settings at {KEEP:.0%} kept. Leave --keep out.")
    if args.data_dir is None:
        sys.exit("Give WikiText's folder: --data-dir FOLDER.")
    args.data_dir = text_folder(args)
    tuning = args.out / "real_model_tuning.csv"
    if args.tune:
        table = measured(args, "real-model", trials(args))
        columns = ["method", "asked", "seed", "steps", "split", "lr", "loss"]
        table[columns].to_csv(tuning, index=False)
        print(table[["method", "loss"]].to_string(index=False))
        return
    best = best_settings(pd.read_csv(tuning))
    todo = grids(args, best)
    table = measured(args, "real-model", todo)
    todo += controls(args, best, table)
    measured(args, "real-model", todo)
    table = measured(args, "real-model", [*todo, *taught(args, best)])
    only_teaches = (table["method"] == DENSE.label) & (table["lr"] != best[DENSE.label]["lr"])
    table = table[~only_teaches]
    is_real = args.base == BASE and not args.quick
    path = REAL if is_real else args.out / REAL.name
    table = pd.concat([table, reported(path, table["asked"])])
    table = table.sort_values("asked", ascending=False, kind="stable")
    table[[column for column in table if column not in UNTOLD]].to_csv(
        path, index=False, float_format="%.6g"
    )
    command = f"{args.command} --data-dir FOLDER"
    harness.write(args, "real_model.md", report(args.base, command, table, best))


if __name__ == "__main__":
    main()
