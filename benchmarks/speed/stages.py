"""The one-shot job on a real model, stage by stage, in seconds and memory: results/stages.md.

    gumlab fetch smollm2-135m
    python benchmarks/speed/stages.py --data-dir FOLDER              # WikiText's folder
    python benchmarks/speed/stages.py --base tiny-llama --data-dir FOLDER

From loading to a saved checkpoint: half of the neurons by greedy OBS in the loss's currency, one
budget over all layers, refit behind the layers already cut. Beside each stage stands the bare work
that it cannot do without, measured in the same process: passes of the model's body, products
H^T H, inverses and solutions of that size, and nothing else. Then a few training steps, beside the
forward and backward passes alone.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import harness
import torch

import gumlab as gl
from gumlab.tasks.batches import collated, encode

TOKENS = 14 * 1024  # of calibration
TEST_TOKENS = 8 * 1024
BLOCK = 1024
STEPS = 4


class Job:
    """The stages in their order; each leaves what the next one needs."""

    def __init__(self, args: Any, folder: Path) -> None:
        self.args = args
        self.folder = folder
        task = gl.load_task("wikitext", args.data_dir)
        passages = list(task.train or task.validation)
        self.texts = passages
        self.options = {"limit": None, "tokens": args.tokens, "batch_size": 2}

    def load(self) -> None:
        self.model, self.tokenizer = gl.load(self.args.base, device="cpu")

    def loss(self) -> None:
        rows = encode(self.tokenizer, self.texts, BLOCK)[: self.args.test_tokens // BLOCK]
        with torch.no_grad():
            for batch in collated(self.model, rows, 2):
                self.model(**batch)

    def currency(self) -> None:
        self.prices = gl.collecting.currencies(
            self.model, self.tokenizer, self.texts, "loss_scalar", **self.options
        )

    def scores(self) -> None:
        self.found = gl.score(self.model, "greedy_obs", self.tokenizer, self.texts, **self.options)

    def select(self) -> None:
        worth = [score * price**2 for score, price in zip(self.found, self.prices, strict=True)]
        self.masks = gl.select(worth, 0.5, "global")

    def shrink(self) -> None:
        self.small = gl.shrink(
            self.model, self.masks, self.tokenizer, self.texts, refit=True, **self.options
        )

    def save(self) -> None:
        gl.save(self.small, self.tokenizer, self.folder / "small")

    def train_bf16(self) -> None:
        self.train("bf16")

    def train_fp32(self) -> None:
        self.train("fp32")

    def train(self, precision: str) -> None:
        """A few steps of the dense model."""
        gl.train(
            self.model,
            self.tokenizer,
            self.texts,
            steps=STEPS,
            batch_size=2,
            block=256,
            lr=1e-5,
            precision=precision,
            progress=False,
        )

    # --- the bare work -------------------------------------------------------------------------

    def batches(self) -> Any:
        context = min(BLOCK, self.model.config.max_position_embeddings)
        rows = encode(self.tokenizer, self.texts, context)[: self.args.tokens // context]
        return collated(self.model, rows, 2)

    def bare_pass(self) -> None:
        """The body alone: no logits."""
        with torch.no_grad():
            for batch in self.batches():
                batch.pop("labels")
                self.model.base_model(**batch)

    def bare_backward(self) -> None:
        """Forward and backward of everything but the gradients of weights."""
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        for batch in self.batches():
            labels = batch.pop("labels")
            ids = batch.pop("input_ids")
            embedded = self.model.get_input_embeddings()(ids).requires_grad_(True)
            self.model(inputs_embeds=embedded, labels=labels, **batch).loss.backward()
        for parameter in self.model.parameters():
            parameter.requires_grad_(True)

    def bare_steps_bf16(self) -> None:
        self.bare_steps(torch.bfloat16)

    def bare_steps_fp32(self) -> None:
        self.bare_steps(None)

    def bare_steps(self, dtype: torch.dtype | None) -> None:
        """As many forward and backward passes as the training's, and no optimizer."""
        rows = encode(self.tokenizer, self.texts, 256)[: 2 * STEPS]
        for batch in collated(self.model, rows, 2):
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype is not None):
                loss = self.model(**batch).loss
            loss.backward()
            self.model.zero_grad(set_to_none=True)

    def bare_products(self) -> None:
        """H^T H of every layer."""
        for layer in gl.neurons(self.model):
            activations = torch.randn(2048, layer.width)
            for _ in range(self.args.tokens // 2048):
                activations.T @ activations

    def bare_inverses(self) -> None:
        """An inverse of every layer's G, in float64."""
        for layer in gl.neurons(self.model):
            gram = torch.eye(layer.width, dtype=torch.float64)
            torch.cholesky_inverse(torch.linalg.cholesky(gram))

    def bare_solutions(self) -> None:
        """The kept neurons' equations, for as many right sides as the output has columns."""
        for layer, mask in zip(gl.neurons(self.model), self.masks, strict=True):
            size = int(mask.sum())
            gram = torch.eye(size, dtype=torch.float64)
            sides = torch.ones(size, layer.outgoing().shape[1], dtype=torch.float64)
            torch.cholesky_solve(sides, torch.linalg.cholesky(gram))


STAGES = (
    "load", "loss", "currency", "scores", "select", "shrink", "save", "train_bf16", "train_fp32",
)  # fmt: skip
# what each stage cannot do without: how many times each piece of bare work
BARE: dict[str, dict[str, float]] = {
    "currency": {"bare_backward": 1},
    "scores": {"bare_pass": 1, "bare_products": 1, "bare_inverses": 1},
    # behind a cut layer the model runs again; the smaller layers take less than a whole pass
    "shrink": {"bare_pass": 2, "bare_products": 1, "bare_solutions": 1},
    "train_bf16": {"bare_steps_bf16": 1},
    "train_fp32": {"bare_steps_fp32": 1},
}
PIECES = sorted({piece for needs in BARE.values() for piece in needs})
MEANING = {
    "load": "load, checksums included",
    "loss": "the loss of the dense model on a text",
    "currency": "what an error costs, a layer (forward and backward)",
    "scores": "statistics and greedy OBS",
    "select": "who stays",
    "shrink": "refit behind the layers already cut, and cut",
    "save": "save",
    "train_bf16": f"{STEPS} training steps of 2 x 256 tokens, bfloat16 autocast",
    "train_fp32": f"{STEPS} training steps of 2 x 256 tokens, float32",
}


def perform(args: Any, turn: int) -> dict[str, dict[str, float]]:
    """The whole job once: seconds and MB of every stage and piece of bare work."""
    with tempfile.TemporaryDirectory() as folder:
        job = Job(args, Path(folder))
        found = {}
        for name in (*STAGES, *PIECES):
            work: Callable[[], None] = getattr(job, name)
            _, found[name] = harness.measured(work)
            print(f"round {turn + 1}: {name}: {found[name]['seconds']:.1f} s", flush=True)
    return found


Rounds = list[dict[str, dict[str, float]]]


def median(rounds: Rounds, name: str, what: str = "seconds") -> float:
    """Of a stage or a piece of bare work."""
    return statistics.median(found[name][what] for found in rounds)


def bare_seconds(rounds: Rounds, stage: str) -> float:
    """Of all the bare work that a stage cannot do without."""
    return sum(times * median(rounds, piece) for piece, times in BARE[stage].items())


def table(rounds: Rounds) -> list[dict[str, str]]:
    """A row a stage: medians over the rounds."""
    rows = []
    for name in STAGES:
        spent = median(rounds, name)
        row = {
            "stage": MEANING[name],
            "seconds": f"{spent:.1f}",
            "memory above the stage before, MB": f"{median(rounds, name, 'MB'):,.0f}",
        }
        if name in BARE:
            bare = bare_seconds(rounds, name)
            row["bare work, seconds"] = f"{bare:.1f}"
            row["ratio"] = f"{spent / bare:.2f}"
        rows.append(row)
    return rows


def main() -> None:
    parser = harness.options(__doc__, rounds=1)
    parser.add_argument("--data-dir", required=True, help="WikiText's folder")
    parser.add_argument("--base", default="smollm2-135m", help="the model (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=TOKENS, help="of calibration (%(default)s)")
    args = harness.parsed(parser)
    if args.quick:
        args.tokens = 2048
    args.test_tokens = 2048 if args.quick else TEST_TOKENS
    rounds = [perform(args, turn) for turn in range(args.rounds)]
    job = [name for name in STAGES if not name.startswith("train")]
    whole = sum(median(rounds, name) for name in job)
    beside = [name for name in job if name in BARE]
    ratio = sum(median(rounds, name) for name in beside) / sum(
        bare_seconds(rounds, name) for name in beside
    )
    text = (
        f"# The one-shot job by stage: {args.base}\n\n"
        f"{harness.made_by(args.command + ' --data-dir FOLDER')} {harness.machine()}. "
        f"{args.tokens:,} tokens of calibration, {args.test_tokens:,} of a text to judge; "
        f"{args.rounds} round(s), medians. {whole:.0f} s without the training; the stages of it "
        f"that stand beside bare work take {ratio:.2f} times as long as that, together.\n\n"
        f"{harness.markdown(table(rounds))}"
    )
    harness.write(args, "stages.md", text)


if __name__ == "__main__":
    main()
