"""Fill README.md and results/README.md with what code makes; --check only compares.

Usage: python tools/update_readme.py [--check]
What stands between a marker and the next `<!-- end -->` is made again. The markers are
`<!-- badges -->`, `<!-- course -->`, `<!-- findings -->`, `<!-- bases -->`, and
`<!-- table NAME -->` or `<!-- table NAME 2 -->`: the first or second table of results/NAME.md.
"""

from __future__ import annotations

import json
import math
import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from gumlab.course.addresses import badges, links

ROOT = Path(__file__).resolve().parents[1]
FILES = ("README.md", "results/README.md")
SECTION = re.compile(r"<!-- (\w+)(?: (\w+))?(?: (\d+))? -->\n.*?<!-- end -->", re.DOTALL)
FIRST_NOTEBOOK = "notebooks/00_start_here.ipynb"


def repository_of(root: Path) -> str | None:
    """The repository's address in pyproject.toml, or None while it is unset."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    return settings["project"].get("urls", {}).get("Repository")


def markdown_row(cells: Iterable[str]) -> str:
    """One row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def markdown_table(columns: list[str], rows: Iterable[list[str]]) -> str:
    """A whole Markdown table."""
    head = [markdown_row(columns), "|---" * len(columns) + "|"]
    return "\n".join(head + [markdown_row(row) for row in rows])


def badge_lines(root: Path) -> str:
    """Badges that open the first notebook; nothing without an address."""
    repository = repository_of(root)
    return badges(repository, FIRST_NOTEBOOK) if repository else ""


def course_list(root: Path) -> str:
    """One line per notebook: its question, minutes to read, seconds to run, where it opens."""
    repository = repository_of(root)
    seconds = json.loads((root / "results" / "notebooks.json").read_text(encoding="utf-8"))
    lines = []
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        first_cell = "".join(notebook["cells"][0]["source"])
        number, question = re.search(r"^# (\d\d) · (.+)$", first_cell, re.MULTILINE).groups()
        times = re.search(r"\*\*Time\*\* (\d+)", first_cell)[1] + " min"
        if path.name in seconds:
            times += f", {seconds[path.name]:.0f} s"
        line = f"- [{number}](notebooks/{path.name}) {question} ({times})"
        if repository:
            places = links(repository, f"notebooks/{path.name}")
            line += "".join(f" [{place}]({address})" for place, address in places.items())
        lines.append(line)
    return "\n".join(lines)


def bases_table(root: Path) -> str:
    """One row per built-in model, from the files `make assets` wrote."""
    files = sorted((root / "results" / "bases").glob("*.json"))
    models = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    columns = list(dict.fromkeys(column for model in models for column in model))
    columns = [column for column in columns if not column.endswith("loss")]

    def cell(value: object) -> str:
        return f"{value:,}" if isinstance(value, int) else str(value)

    return markdown_table(
        columns, [[cell(model.get(column, "")) for column in columns] for model in models]
    )


def mean_losses(root: Path, name: str, chosen: str) -> pd.Series:
    """Mean loss over the seeds, by method or score, of the runs of results/NAME.csv that `chosen`
    (a pandas query) picks.
    """
    runs = pd.read_csv(root / "results" / f"{name}.csv").query(chosen)
    by = "score" if "score" in runs else "method"
    return runs.groupby(by)["loss"].mean()


def share_by_widths(losses: pd.Series) -> float:
    """The share of GUM's gain over random that random neurons at its layer widths have."""
    gain = losses["random"] - losses["GUM"]
    return (losses["random"] - losses["random at GUM's widths"]) / gain


def findings_table(root: Path) -> str:
    """What we found, a row a question; each figure is a mean over the seeds of stored runs.

    The words are held by tests/repository/test_results.py, as those of results/README.md are.
    """
    restaurants = mean_losses(root, "methods_restaurants", "not distilled")
    e2e = mean_losses(root, "methods_e2e", "not distilled")
    shares_by_widths = [share_by_widths(losses) for losses in (restaurants, e2e)]
    grid = pd.read_csv(root / "gumlab" / "assets" / "study.csv").query("not distilled")

    def share_in_grid(base: str) -> float:
        """The same on a base of the paper's grid, at the fewest neurons kept."""
        runs = grid[grid["model"] == base]
        fewest = runs[runs["asked"] == runs["asked"].min()]
        return share_by_widths(fewest.groupby("method")["loss"].mean())

    at_a_quarter = "task == 'restaurants' and keep == 0.25 and scope == 'layer' and refit == "
    as_cut = mean_losses(root, "one_shot", at_a_quarter + "'none'")
    refitted = mean_losses(root, "one_shot", at_a_quarter + "'weights'")
    whole = mean_losses(root, "one_shot", "task == 'restaurants' and score == 'dense'")

    at_a_tenth = "base == 'tiny-gpt-neo' and asked == 0.1 and not distilled and task == "
    known = mean_losses(root, "recipes", at_a_tenth + "'restaurants'")
    new = mean_losses(root, "recipes", at_a_tenth + "'e2e'")
    one_shot = "greedy OBS + refit, global"

    rows = [
        [
            "Do the paper's methods beat chance?",
            f"GUM does, {restaurants['GUM']:.3f} against random's {restaurants['random']:.3f}, and "
            f"beats the paper's others. Magnitude, {restaurants['magnitude']:.3f}, cannot be told "
            "from random here; in the shorter runs of the paper's grid it is lower.",
            "[methods](results/README.md#all-methods)",
        ],
        [
            "Which neurons, or how many in each layer?",
            "That differs by base. Here mostly how many: random neurons at GUM's layer widths have "
            f"{shares_by_widths[0]:.0%} of its gain (E2E: {shares_by_widths[1]:.0%}). In redundant "
            f"bases mostly which: there they have {share_in_grid('tiny-twins'):.0%} of it (with "
            f"planted copies, a quarter kept) and {share_in_grid('tiny-wide'):.0%} (too wide for "
            "its task).",
            "[findings](results/README.md#the-papers-findings)",
        ],
        [
            "What is GUM's uniqueness term worth?",
            f"No effect on the loss is shown: {restaurants['GUM']:.3f} with it, "
            f"{restaurants['GUM, lambda_gum = 0']:.3f} without; nor where twins were planted.",
            "[uniqueness](results/README.md#what-uniqueness-is-worth)",
        ],
        [
            "And if nothing is trained?",
            "The refit matters more than the score. With a quarter kept, the best score as cut has "
            f"{as_cut.min():.3f}, chance with a refit {refitted['random']:.3f}, the whole model "
            f"{whole['dense']:.3f}.",
            "[one shot](results/README.md#without-training)",
        ],
        [
            "What do we recommend?",
            "If the model knows the task: greedy OBS over all layers, the refit, then all the "
            f"training ({known[one_shot]:.3f}; GUM {known['GUM']:.3f}). If the task is new to "
            f"it: GUM ({new['GUM']:.3f}; the recipe {new[one_shot]:.3f}, E2E).",
            "[recipes](results/README.md#the-recipe-we-recommend)",
        ],
        *real_findings(root),
    ]
    return markdown_table(["question", "what we found", "more"], rows)


def real_findings(root: Path) -> list[list[str]]:
    """What a real language model says: two rows of perplexities, one of single neurons."""
    assets = root / "gumlab" / "assets"
    cuts = pd.read_csv(assets / "real_one_shot.csv")
    cuts = cuts.assign(perplexity=cuts["loss"].map(math.exp))
    whole = cuts.query("score == 'dense'")["perplexity"].item()
    half = cuts.query("keep == 0.5 and score == 'greedy_obs' and refit == 'refit'")
    cut = half.groupby("allocation")["perplexity"].mean()
    runs = pd.read_csv(assets / "real_study.csv").query("not distilled")
    trained, quarter = (
        runs[runs["asked"] == keep].groupby("method")["perplexity"].mean() for keep in (0.5, 0.25)
    )
    told = pd.read_csv(root / "results" / "few_neurons_agreement.csv").query("form == 'as it is'")
    ranks = told.set_index("score")["Spearman, divergence"]
    return [
        [
            "How are layers to share one budget in a real model?",
            f"In the loss's currency. Half of the neurons, nothing trained, perplexity: the whole "
            f"{whole:.1f}, equal shares {cut['equal']:.1f}, one budget by the raw error (which "
            f"helps the tiny models) {cut['output']:.1f}, one budget by the error priced layer by "
            f"layer {cut['loss_scalar']:.1f}. "
            "The last is recommended now.",
            "[real](results/README.md#a-real-language-model)",
        ],
        [
            "And the paper's methods there?",
            "With half of the neurons, on each of three seeds random beats magnitude, movement "
            "both, and GUM, the tiny models' best, is behind global movement. Pruned in 40 steps, "
            f"perplexity: magnitude {trained['magnitude']:.0f}, random {trained['random']:.0f}, "
            f"GUM {trained['GUM']:.0f} ({trained['GUM, lambda_gum = 0']:.0f} without its "
            f"uniqueness term), movement over all layers {trained['movement, global']:.0f}; cut "
            f"once, with as many steps after it, {trained['one shot, then healing']:.0f}. With a "
            f"quarter GUM, {quarter['GUM']:.0f}, is below random, {quarter['random']:.0f}, on each "
            "seed (zero is only just outside the interval); cut once "
            f"{quarter['one shot, then healing']:.0f}.",
            "[real](results/README.md#a-real-language-model)",
        ],
        [
            "Which of its neurons are missed, one by one?",
            "Those whose output, priced by the loss, is large. Rank agreement with how far the "
            f"predictions move: the priced error (Wanda's) {ranks['Wanda, loss']:.2f}, sensitivity "
            f"{ranks['sensitivity']:.2f}, magnitude {ranks['magnitude']:.2f}, uniqueness (1 - the "
            f"largest cosine) {ranks['1 - max cosine']:.2f}: one like no other is missed less.",
            "[real](results/README.md#a-real-language-model)",
        ],
    ]


def results_table(root: Path, name: str, number: int = 1) -> str:
    """The first (or a later) Markdown table of results/NAME.md."""
    text = (root / "results" / f"{name}.md").read_text(encoding="utf-8")
    tables = re.findall(r"(?:^\|.*\n?)+", text, flags=re.MULTILINE)
    return tables[number - 1].rstrip("\n")


SECTIONS = {
    "badges": badge_lines,
    "course": course_list,
    "findings": findings_table,
    "bases": bases_table,
    "table": results_table,
}


def filled(text: str, root: Path = ROOT) -> str:
    """`text` with every section made again."""

    def section(match: re.Match) -> str:
        kind, name, number = match.groups()
        arguments = [name] if name else []
        if number:
            arguments.append(int(number))
        made = SECTIONS[kind](root, *arguments).rstrip("\n")
        marker = match[0].splitlines()[0]
        return "\n".join(part for part in (marker, made, "<!-- end -->") if part)

    return SECTION.sub(section, text)


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Write or check; 1 if a file differs under --check."""
    stale = 0
    for name in FILES:
        path = root / name
        text = path.read_text(encoding="utf-8")
        wanted = filled(text, root)
        if wanted == text:
            continue
        stale += 1
        if "--check" in arguments:
            print(f"{name} does not show what results/ holds: run python tools/update_readme.py.")
        else:
            path.write_text(wanted, encoding="utf-8", newline="\n")
            print(f"{name}: written.")
    return int("--check" in arguments and stale > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
