"""How much of the course the notebooks do, and how much the student: results/course.md.

    python tools/course_numbers.py           # write the table
    python tools/course_numbers.py --check   # exit 1 if it is not in step with the notebooks

For each notebook: the words of its text; the lines of code that a reader sees, without the stubs of
exercises; the lines of the exercises' solutions, which students write; the asserts in code cells;
and the exercises. Beside them stands the first edition, results/course_first_edition.csv.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import nbformat
import pandas as pd

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "results" / "course.md"
BEFORE = ROOT / "results" / "course_first_edition.csv"
SOLUTION = re.compile(r"```python\n# solution: \w+\n(.*?)```", re.DOTALL)
CHECK = re.compile(r"= gl\.check\.(?!claims)\w+\(")


def lines_of(code: str) -> list[str]:
    """The lines that are not empty."""
    return [line for line in code.splitlines() if line.strip()]


def counted(path: Path) -> dict[str, int]:
    """The row of one notebook."""
    cells = nbformat.read(path, as_version=4).cells
    texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
    codes = [cell.source for cell in cells if cell.cell_type == "code"]
    shown = [code for code in codes if "raise NotImplementedError" not in code]
    solutions = [solution for text in texts for solution in SOLUTION.findall(text)]
    return {
        "words": sum(len(SOLUTION.sub("", text).split()) for text in texts),
        "visible lines": sum(len(lines_of(code)) for code in shown),
        "students' lines": sum(len(lines_of(solution)) for solution in solutions),
        "asserts": sum(len(re.findall(r"(?m)^\s*assert\b", code)) for code in codes),
        "exercises": sum(len(CHECK.findall(code)) for code in codes),
    }


def course(folder: Path) -> pd.DataFrame:
    """A row for each notebook of a folder, and their sum."""
    rows = {path.stem[:2]: counted(path) for path in sorted(folder.glob("[0-9]*.ipynb"))}
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.loc["all"] = table.sum()
    return table


def report(before: pd.DataFrame, now: pd.DataFrame) -> str:
    """results/course.md."""
    lines = [
        "# The course in numbers, first edition and now",
        "",
        "Made by `python tools/course_numbers.py`. Words: of the text, without code. Visible "
        "lines: of code that a reader sees, without the stubs of exercises. Students' lines: of "
        "the exercises' solutions. First edition → now.",
        "",
        f"| notebook | {' | '.join(now.columns)} |",
        f"|{'---|' * (len(now.columns) + 1)}",
    ]
    for name, row in now.iterrows():
        cells = [f"{before.loc[name, column]:,} → {row[column]:,}" for column in now.columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="exit 1 if it is not in step")
    parser.add_argument("--first-edition", type=Path, help="a folder of its notebooks, counted")
    args = parser.parse_args()
    if args.first_edition:
        course(args.first_edition).to_csv(BEFORE, index_label="notebook")
    before = pd.read_csv(BEFORE, dtype={"notebook": str}).set_index("notebook")
    text = report(before, course(ROOT / "notebooks"))
    if args.check:
        if not REPORT.exists() or REPORT.read_text(encoding="utf-8") != text:
            sys.exit("results/course.md is not in step: run python tools/course_numbers.py")
        return
    REPORT.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
