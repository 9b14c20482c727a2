"""How long an explorer takes to answer a moved control.

    python benchmarks/speed/explorers.py

Every explorer of the course, on tiny-gpt2 and restaurants: seconds to its first picture, then each
of its controls moved to several places (first visit: computed and drawn), all of them once more as
a user finds it (seen before: answers and pictures are kept), and once more with the answers kept
but not the pictures (drawn again). Writes results/explorers.md: median and 95th percentile of the
milliseconds until picture and sentence are given to the browser.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import harness

MOVES = 40
BUDGET = {"first visit": 1000, "seen before": 150, "drawn again": 400}  # milliseconds, p95


def places(control: Any) -> list[Any]:
    """The values a control can have."""
    if hasattr(control, "options"):
        return [o[1] if isinstance(o, tuple) else o for o in control.options]
    if hasattr(control, "step"):
        return list(range(control.min, control.max + 1, control.step))
    return [False, True]


def answers(explorer: Any, count: int, seed: int = 0) -> dict[str, list[float]]:
    """Milliseconds of each move, on the first visit and again."""
    draw = random.Random(seed)
    moves = []
    for _ in range(count):
        name = draw.choice(list(explorer.controls))
        moves.append((name, draw.choice(places(explorer.controls[name]))))
    times: dict[str, list[float]] = {}
    said: list[float] = []
    for part in (explorer._picture, explorer._words):
        part.observe(lambda _: said.append(time.perf_counter()), "value")
    start = {name: control.value for name, control in explorer.controls.items()}
    for visit in ("first visit", "between", *list(BUDGET)[1:]):  # once between, to have seen all
        for name, value in [*start.items(), *moves]:
            before = explorer.state()
            if visit == "drawn again":
                explorer._drawn.clear()
            said.clear()
            began = time.perf_counter()
            explorer.controls[name].value = value
            said.append(said[-1] if said else time.perf_counter())  # none: nothing has changed
            if explorer.state() != before:  # it was elsewhere, so it has answered
                times.setdefault(visit, []).append(1000 * (said[-1] - began))
            assert explorer.error is None, explorer.error
    times.pop("between", None)
    return times


def p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]


def main() -> None:
    args = harness.parsed(harness.options(__doc__))
    import gumlab as gl
    from gumlab.course.explore import page

    gl.start(seed=0, threads=1)
    tabs = page("tiny-gpt2", "restaurants")
    rows = []
    worst = dict.fromkeys(BUDGET, 0.0)
    for number in range(2 if args.quick else len(tabs.children)):
        began = time.perf_counter()
        tabs.selected_index = number
        first = time.perf_counter() - began
        explorer = tabs.children[number]
        row = {
            "explorer": tabs._titles[number],
            "first picture, s": f"{first:.1f}" if number else "",
        }
        for visit, times in answers(explorer, 4 if args.quick else MOVES).items():
            row[f"{visit}: median, ms"] = f"{statistics.median(times):.0f}"
            row[f"{visit}: p95, ms"] = f"{p95(times):.0f}"
            worst[visit] = max(worst[visit], p95(times))
        rows.append(row)
        print(row, flush=True)
    verdicts = [
        f"- {visit}: the largest p95 is {worst[visit]:.0f} ms, the budget {limit} ms: "
        f"{'kept' if worst[visit] <= limit else 'missed'}.\n"
        for visit, limit in BUDGET.items()
    ]
    text = (
        "# How long the explorers take to answer\n\n"
        f"Made by `{args.command}`, one thread. First visit: computed and drawn; seen before: "
        "answer and picture are kept, as they are for a user; drawn again: the answer is kept, but "
        "not its picture. Timed until picture and sentence are given to the browser.\n\n"
        f"{harness.markdown(rows)}\n{''.join(verdicts)}"
    )
    harness.write(args, "explorers.md", text)


if __name__ == "__main__":
    main()
