"""Put the tables that commands made into README.md, between their markers; --check only compares.

python tools/update_readme.py [--check]
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def bases_table(folder: Path) -> str:
    """One row per built-in model, from the files `make assets` wrote."""
    rows = [json.loads(p.read_text(encoding="utf-8")) for p in sorted(folder.glob("*.json"))]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    columns = [c for c in columns if not c.endswith("loss")]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for row in rows:
        cells = [
            f"{row[c]:,}" if isinstance(row.get(c), int) else str(row.get(c, "")) for c in columns
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def notebooks_table(folder: Path, seconds: dict[str, float]) -> str:
    """One row per notebook: its question, minutes to read, seconds to run, and its badges."""
    lines = ["| notebook | minutes | seconds | open in |", "|---|---|---|---|"]
    for path in sorted(folder.glob("*.ipynb")):
        first = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
        number, question = re.search(r"^# (\d\d) · (.+)$", first, re.MULTILINE).groups()
        minutes = re.search(r"\*\*Time\*\* (\d+)", first)[1]
        ran = f"{seconds[path.name]:.0f}" if path.name in seconds else ""
        links = zip(("Colab", "Binder"), re.findall(r"\]\((https[^)]+)\)\n", first), strict=True)
        places = ", ".join(f"[{name}]({link})" for name, link in links)
        name = f"[{number}](notebooks/{path.name}) {question}"
        lines.append(f"| {name} | {minutes} | {ran} | {places} |")
    return "\n".join(lines)


def table_of(path: Path, number: int = 1) -> str:
    """The first (or a later) Markdown table of a results file."""
    tables = re.findall(r"(?:^\|.*\n?)+", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return tables[number - 1].rstrip("\n")


def filled(text: str, root: Path = ROOT) -> str:
    """`text` with every `<!-- table NAME -->` or `<!-- table NAME 2 -->` section from results/."""

    def section(match: re.Match) -> str:
        name, number = match[1], int(match[2] or 1)
        results = root / "results"
        times = results / "notebooks.json"
        if name == "bases":
            table = bases_table(results / "bases")
        elif name == "notebooks":
            table = notebooks_table(root / "notebooks", json.loads(times.read_text()))
        else:
            table = table_of(results / f"{name}.md", number)
        return f"{match[0].splitlines()[0]}\n{table}\n<!-- end -->"

    return re.sub(
        r"<!-- table (\w+)(?: (\d+))? -->\n.*?<!-- end -->", section, text, flags=re.DOTALL
    )


def main() -> int:
    path = ROOT / "README.md"
    old = path.read_text(encoding="utf-8")
    new = filled(old)
    if "--check" in sys.argv:
        if new != old:
            print("README.md does not show what results/ holds: run python tools/update_readme.py.")
        return int(new != old)
    path.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
