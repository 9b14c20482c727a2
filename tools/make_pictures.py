"""Make the pictures of README.md, TEACHING.md and results/: an explorer, a neuron, recipes, refits.

python tools/make_pictures.py
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

import gumlab as gl
from gumlab.course.plots.figure import BLUE, GREEN, GREY, ORANGE, RED

RESULTS = Path(__file__).parents[1] / "results"
SHOWN = {  # method of results/recipes.csv -> how it is drawn
    "random": ("s--", ORANGE),
    "GUM": ("^:", GREEN),
    "random + refit, at greedy OBS's widths": ("D-.", RED),
    "greedy OBS + refit, global": ("o-", BLUE),
}
PANELS = {  # base and task -> title
    ("tiny-gpt-neo", "restaurants"): "restaurants: the base knows the task",
    ("e2e-base", "e2e"): "real E2E: the base knows the task",
    ("tiny-gpt-neo", "e2e"): "real E2E: new to the base",
}


def explorer() -> bytes:
    """The trade-off explorer after a few moves."""
    gl.start(seed=0)
    model, tokenizer = gl.load("tiny-twins", device="cpu")
    shown = gl.explore.tradeoff(model, tokenizer, gl.load_task("restaurants"))
    for name, value in (("method", "magnitude"), ("method", "greedy_obs"), ("scope", "global")):
        shown.controls[name].value = value
    shown.controls["keep"].value = 25
    return shown.plot.png()


def recipes() -> bytes:
    """Loss against the neurons kept, mean and range of the seeds, in three settings."""
    table = pd.read_csv(RESULTS / "recipes.csv")
    table = table[~table["distilled"]]
    figure, axes = gl.plots.new_figure(3, width=12.4, height=3.9)
    for ax, ((base, task), title) in zip(axes, PANELS.items(), strict=True):
        mine = table[(table["base"] == base) & (table["task"] == task)]
        for method, (style, colour) in SHOWN.items():
            runs = mine[mine["method"] == method].groupby("asked")["loss"]
            mean, x = runs.mean(), 100 * runs.mean().index
            ax.plot(x, mean, style, color=colour, label=method)
            ax.fill_between(x, runs.min(), runs.max(), color=colour, alpha=0.2, lw=0)
        ax.axhline(mine[mine["method"] == "dense"]["loss"].mean(), color=GREY, ls="--", lw=1.2)
        ax.set(title=title, xlabel="neurons kept (%); dashed: dense", xlim=(0, 55))
        ax.title.set_fontsize(10)
    axes[0].set_ylabel("loss after the same training (nats a token)")
    axes[0].legend(frameon=False, fontsize=8)
    return gl.plots.Plot(figure, "").png()


def refits() -> bytes:
    """Score x refit without any training: real E2E, a tenth kept, one budget over all layers."""
    table = pd.read_csv(RESULTS / "one_shot.csv")
    wanted = (table["task"] == "e2e") & (table["scope"] == "global") & (table["keep"] == 0.1)
    return gl.plots.refit_heat(table[wanted]).png()


if __name__ == "__main__":
    (RESULTS / "explorer.png").write_bytes(explorer())
    gl.plots.neuron("whole").save(RESULTS / "neuron.svg")
    (RESULTS / "recipes.png").write_bytes(recipes())
    (RESULTS / "one_shot.png").write_bytes(refits())
