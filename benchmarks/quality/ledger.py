"""The paper's findings beside what the study measured: results/ledger.md and ledger.csv.

    python benchmarks/quality/ledger.py

From gumlab/assets/study.csv and real_study.csv alone, which study.py and real_model.py make. Claims
and rules are those of gumlab/study/claims.py and gumlab/study/paper.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import harness
import pandas as pd

from gumlab.study import paper


def main() -> None:
    args = harness.parsed(harness.options(__doc__))
    table = paper.study()
    real = paper.real_study()
    claims = paper.effects(table, paper.margin())
    claims = pd.concat([claims, paper.effects(real, paper.margin())])
    claims.drop(columns="number").to_csv(args.out / "ledger.csv", index=False)
    told = paper.ledger(table)
    text = (
        "# The paper's findings, and what we measured\n\n"
        f"{harness.made_by(args.command)} From the {len(table)} runs of the study "
        f"(`study.md`; {table['seed'].nunique()} seeds each), of them those of the paper's "
        "methods.\n\n"
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
        "tests.\n\n"
        + harness.markdown(told.to_dict("records"))
        + "\n## By kind of base model\n\nTiny: the built-in models, of a million parameters. "
        "Redundant: two of them, one with planted copies, one wider than its task needs. "
        f"Real: SmolLM2-135M, {len(real)} runs on WikiText-2 (`real_model.md`). A tiny model is no "
        "evidence about language models, and one language model is no evidence about all.\n\n"
        + harness.markdown(paper.ledger_by_base(pd.concat([table, real])).to_dict("records"))
        + "\nEvery setting: `ledger.csv`.\n"
    )
    harness.write(args, "ledger.md", text)


if __name__ == "__main__":
    main()
