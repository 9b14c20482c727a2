"""The paper's findings beside what the committed tables hold: results/ledger.md and ledger.csv.

    python benchmarks/ledger.py

Rows come from results/methods_*.csv, recipes.csv and uniqueness.csv, as far as their methods are
the paper's: GUM with lambda_gum = 1, its default. Each file is a setting of its own: they differ in
steps and bases. Claims and rules are those of gumlab/claims.py and gumlab/paper.py.
"""

from __future__ import annotations

import pandas as pd
from grid import ROOT, made_by, markdown

from gumlab import paper

METHODS = ("dense", "random", "magnitude", "movement, local", "movement, global", "soft movement",
           "GUM")  # fmt: skip


def rows() -> pd.DataFrame:
    """The runs of the paper's methods from every committed table."""
    parts = []
    for name in ("methods_restaurants", "methods_e2e", "recipes", "uniqueness"):
        table = pd.read_csv(ROOT / "results" / f"{name}.csv")
        table["method"] = table["method"].replace({"GUM, lambda_gum 1": "GUM"})
        table["distilled"] = table["distilled"].astype(bool)
        if "asked" not in table:  # one budget of 10 %, which soft movement ends a little above
            table["asked"] = table["keep"].where(table["method"] == "dense", 0.1)
        table["model"] = table.get("base", "tiny-gpt-neo")
        table["model"] += f" ({name.split('_')[0]})"
        parts.append(table[table["method"].isin(METHODS)])
    return pd.concat(parts, ignore_index=True)


def main() -> None:
    table = rows()
    claims = paper.effects(table, paper.margin())
    claims.drop(columns="number").to_csv(ROOT / "results" / "ledger.csv", index=False)
    told = paper.ledger(table)
    text = (
        "# The paper's findings, and what we measured\n\n"
        f"{made_by('python benchmarks/ledger.py')} From {len(table)} runs of the committed tables "
        f"({table['seed'].nunique()} seeds each).\n\n"
        "Every claim is an effect that is below 0 where it is as claimed, measured in each setting "
        "(task, base, fraction kept, distilled or not, pair of methods) over the seeds, paired; "
        "+- is half its 95 % t interval. A setting is as claimed or opposite where the interval "
        "leaves 0 out. **Holds**: more than half of the settings are as claimed. **Does not "
        "hold**: more than half are opposite. Else it cannot be told at this size. The paper's own "
        "figures have no spread: of them the signs are counted, on WikiSQL and Wikitext-103. "
        f"Comparable (F1) means to avoid less than {paper.margin():.0%} of random's damage, the "
        "largest share in Table 4 without distillation, so that the paper's count there is so by "
        "construction. That the best results balance both (F6) and a reasonable sensitivity (F4) "
        "are no differences, and are not tested. Which of the two movements the paper's hard "
        "movement was is not known, so both count. Settings share runs, so they are no independent "
        "tests.\n\n" + markdown(told.to_dict("records")) + "\nEvery setting: `ledger.csv`.\n"
    )
    (ROOT / "results" / "ledger.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
