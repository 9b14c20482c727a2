"""What the paper did on each of its tasks, and its grid: data, and the steps that epochs are.

What the paper does not say is its public code's default; what neither says, and what gumlab does in
another way, stands in `Experiment.differs` and `DIFFERS`, and is printed with every result.

References
----------
Santacroce, Wen, Shen and Li, "What Matters In The Structured Pruning of Generative Language
Models?", arXiv 2302.03773 (2023); github.com/santacml/nn_pruning_uniqueness.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from gumlab.collecting import TOKENS
from gumlab.errors import check_choice, check_whole, unknown
from gumlab.selection import check_keep
from gumlab.study.methods import PAPER_METHODS, Method
from gumlab.tasks import Task
from gumlab.tasks.batches import BLOCK, context_length, encode, is_running_text

MODEL = "EleutherAI/gpt-neo-125m"
EPOCHS = 5
BATCH_SIZE = 8
WHOLE_WIKITEXT = 100_000  # blocks of 1,024 tokens, of which Wikitext-103 has more

# the public code's optimiser; it trains in float32
TRAINING: Mapping[str, Any] = {
    "lr": 5e-4,
    "weight_decay": 0.1,
    "eps": 1e-4,
    "clip": 1.0,
    "precision": "fp32",
}
# masks change to the last step; a neuron's score is learned at 0.01, which is gumlab's default
PRUNING: Mapping[str, Any] = {"freeze": False}
GRAMS: Mapping[str, Any] = {"gram_every": 1, "gram_tokens": 1.0, "gram_memory": 0.001}


def _as_in_the_paper(method: Method) -> Method:
    """A method of the paper with its public code's settings."""
    if method.name is None:
        return method
    options = {**method.options, **PRUNING}
    if method.name == "gum":
        options.update(GRAMS)
    return replace(method, options=options)


METHODS = tuple(_as_in_the_paper(method) for method in PAPER_METHODS)


@dataclass(frozen=True)
class Experiment:
    """What the paper did on one task.

    Attributes
    ----------
    keep : tuple of float
        The fractions of neurons that it kept.
    split : str
        What it measured on.
    kd_weight : float
        Weight of the teacher's term; that of the cross entropy is 0.5, the temperature 2.
    metrics : tuple of str
        The columns of a study's table that are its metrics.
    held : str or None
        What `gumlab.study.paper` calls the task, if it holds numbers of it.
    differs : tuple of str
        What is different here, one sentence each.
    """

    keep: tuple[float, ...]
    split: str
    metrics: tuple[str, ...]
    kd_weight: float = 0.5
    held: str | None = None
    differs: tuple[str, ...] = ()


KD_OF_PROMPTS = (
    "Distillation: the teacher's term is a mean over target tokens. The public code sums it over "
    "all positions of a padded sequence, so that it weighs far more there."
)
OWN_PROMPTS = (
    "Prompt and target are written as gumlab's task writes them, and only the target is learned; "
    "the public code does not supply its files."
)
EXPERIMENTS: Mapping[str, Experiment] = {
    "wikitext": Experiment(
        keep=(0.75, 0.5, 0.25),
        split="validation",
        metrics=("perplexity",),
        kd_weight=0.5 * BLOCK,  # the public code sums over the tokens of a block
        held="Wikitext-103",
        differs=(
            "The text is read in its order. The public code shuffles the lines of both splits "
            "before it cuts blocks of 1,024 tokens, which makes the next token harder to tell.",
            "Perplexity is over every token but the first, in blocks; the public code leaves out "
            "the first token of each block, and what fills no block.",
        ),
    ),
    "wikisql": Experiment(
        keep=(0.5, 0.25, 0.1),
        split="validation",
        metrics=("logical_form", "execution"),
        held="WikiSQL",
        differs=(
            "logical_form does not mind letter case and the order of conditions; the paper asks "
            "for the exact query. gumlab holds none of the paper's accuracies, only its Figure 1.",
            OWN_PROMPTS,
            KD_OF_PROMPTS,
        ),
    ),
    "samsum": Experiment(
        keep=(0.5, 0.25, 0.1),
        split="test",
        metrics=("rouge1", "rouge2", "rougeL"),
        differs=(
            "gumlab holds none of the paper's numbers on SAMSum, and not its fractions: these are "
            "WikiSQL's.",
            OWN_PROMPTS,
            KD_OF_PROMPTS,
        ),
    ),
}
DIFFERS = (
    "Batch size, learning rate and epochs of the published runs are not known: lr 0.0005 and 5 "
    "epochs are the public code's defaults, the batch (its default: 1 a GPU) is gumlab's choice. "
    "It is not accumulated, so it must fit into memory.",
    "The strength of the penalties is not known; GUM has gumlab's lambda 0.3 and lambda_gum 1, and "
    "soft movement's is steered so that it ends at its fraction.",
    "Which movement is the paper's hard movement is not known; both stand beside it.",
    "Magnitude scores a neuron as one; the public code masks its two matrices apart.",
    "Exactly as many neurons stay as asked, and one or more in each layer.",
    "Weight decay is on all weights; the public code leaves out biases and layer norms.",
    f"Sensitivity and uniqueness are measured on 256 training examples, or {TOKENS:,} tokens of "
    "text; the paper's on the whole training set.",
)


def experiment_of(task: str) -> Experiment:
    """What the paper did on a task.

    Parameters
    ----------
    task : {"wikitext", "wikisql", "samsum"}

    Raises
    ------
    GumlabError
        For another one.
    """
    check_choice("task", task, tuple(EXPERIMENTS))
    return EXPERIMENTS[task]


def grid(
    task: str,
    model: str = MODEL,
    steps: int = 1000,
    *,
    only: Sequence[str] = (),
    keep: Sequence[float] = (),
    seeds: int = 1,
    batch_size: int = BATCH_SIZE,
    generated: int | None = None,
    stride: int | None = None,
) -> list[dict[str, Any]]:
    """The paper's grid on a task, for `gumlab.Study`.

    Parameters
    ----------
    task, model : str
        "wikitext", "wikisql" or "samsum"; and what `gumlab.load` loads.
    steps : int
        Of each run; `steps_of` makes them of the epochs.
    only : sequence of str
        These methods, by label or name; by default all of the paper's. The dense runs come along.
    keep : sequence of float
        These fractions, by default the paper's on this task.
    seeds : int
        How many, from 0. The public code's default is the one seed 0.
    batch_size : int
        Sequences a step.
    generated : int, optional
        As in `gumlab.study.run`; by default all.
    stride : int, optional
        Of running text's windows: the context less 1 makes blocks, as the paper's.

    Returns
    -------
    list of dict
        The dense runs, and the pruned ones, each without and with a teacher.

    Raises
    ------
    GumlabError
        For an unknown task or method, and for numbers that cannot be.

    Examples
    --------
    >>> dense, pruned = grid("wikitext", "gpt2", steps=100, only=["GUM"])
    >>> dense["method"].label, [method.label for method in pruned["method"]], pruned["keep"]
    ('dense', ['GUM'], [0.75, 0.5, 0.25])
    """
    experiment = experiment_of(task)
    same: dict[str, Any] = {
        "model": model,
        "task": task,
        "steps": check_whole("steps", steps),
        "seed": range(check_whole("seeds", seeds)),
        "split": experiment.split,
        "generated": generated,
        "batch_size": check_whole("batch_size", batch_size),
        **TRAINING,
    }
    if stride is not None:
        same["stride"] = stride
    dense, *pruning = METHODS
    chosen = _chosen(only, pruning)
    grids = [{**same, "method": dense}]
    if chosen:
        pruned = {
            **same,
            "method": chosen,
            "keep": [check_keep(fraction) for fraction in keep] or list(experiment.keep),
            "distil": [False, True],
            "ce_weight": 0.5,
            "kd_weight": experiment.kd_weight,
            "temperature": 2.0,
        }
        grids.append(pruned)
    return grids


def _chosen(only: Sequence[str], methods: Sequence[Method]) -> list[Method]:
    """The methods that are named, by label or name, whatever the letter case."""
    names = list(dict.fromkeys(["dense", *(str(method.name) for method in methods)]))
    labels = [method.label.lower() for method in methods]
    wanted = {name.lower() for name in only}
    for name in only:
        if name.lower() not in (*names, *labels):
            raise unknown("method", name, names)
    return [m for m in methods if not only or {m.label.lower(), str(m.name)} & wanted]


def steps_of(
    model: nn.Module, tokenizer: Any, data: Task, epochs: int, batch_size: int
) -> tuple[int, int]:
    """How many steps some epochs are.

    Parameters
    ----------
    model, tokenizer, data
        What is trained; the context cuts running text into blocks.
    epochs, batch_size : int
        Times through the training sequences, and sequences a step.

    Returns
    -------
    steps, sequences : int
        epochs * ceil(sequences / batch_size), and the training sequences.
    """
    examples = data.split("train")
    count = len(examples)
    if is_running_text(examples):
        count = len(encode(tokenizer, examples, context_length(model)))
    return epochs * math.ceil(count / batch_size), count
