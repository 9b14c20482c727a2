"""How long an explorer takes to answer a moved control.

    python benchmarks/speed/explorers.py

Every explorer of the app, on tiny-gpt2 and restaurants, and notebook 11's claims: seconds to its
first picture, then each of its controls moved to several places (first visit: computed and drawn),
all of them once more as a user finds it (seen before: answers and pictures are kept), and once more
with the answers kept but not the pictures (drawn again). Where single neurons can be touched, some
are selected, as a click of the pointer does. Writes results/explorers.md: median and 95th
percentile of the milliseconds until picture and sentence are given to the browser. (Notebook 09's
explorer trains when it is moved, as long as it is told to; it is not timed.)
"""

from __future__ import annotations

import itertools
import random
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import harness

MOVES = 40
SELECTED = "a neuron selected"
BUDGET = {  # milliseconds, p95
    "first visit": 1000,
    "seen before": 150,
    "drawn again": 400,
    SELECTED: 1000,
}


def places(control: Any) -> list[Any]:
    """The values a control can have; none for a text, which another control fills in."""
    if hasattr(control, "options"):
        return [o[1] if isinstance(o, tuple) else o for o in control.options]
    if hasattr(control, "step"):
        return list(range(control.min, control.max + 1, control.step))
    return [False, True] if isinstance(control.value, bool) else []


def answers(explorer: Any, count: int, seed: int = 0) -> dict[str, list[float]]:
    """Milliseconds of each move, on the first visit and again."""
    from gumlab.errors import GumlabError

    draw = random.Random(seed)
    moves = []
    movable = [name for name, control in explorer.controls.items() if places(control)]
    for _ in range(count):
        name = draw.choice(movable)
        moves.append((name, draw.choice(places(explorer.controls[name]))))
    times: dict[str, list[float]] = {}
    said: list[float] = []
    for part in (explorer._picture, explorer._words):
        part.observe(lambda _: said.append(time.perf_counter()), "value")
    start = {name: control.value for name, control in explorer.controls.items()}
    for visit in ("first visit", "between", "seen before", "drawn again"):  # between: sees all
        for name, value in [*start.items(), *moves]:
            before = explorer.state()
            if visit == "drawn again":
                explorer._drawn.clear()
            said.clear()
            began = time.perf_counter()
            explorer.controls[name].value = value
            said.append(said[-1] if said else time.perf_counter())  # none: nothing has changed
            # it was elsewhere, so it has answered; a setting that has no answer gets a sentence
            if explorer.error is not None and not isinstance(explorer.error, GumlabError):
                raise explorer.error
            if explorer.state() != before and explorer.error is None:
                times.setdefault(visit, []).append(1000 * (said[-1] - began))
    times.pop("between", None)
    return times


def neurons_of(explorer: Any) -> list[tuple[Any, int]]:
    """Layer and number of the neurons that a user could point at now."""
    found = []
    for group in explorer.plot.placed() if explorer.plot else []:
        if "blocks" in group:
            found += [(b["layer"], neuron) for b in group["blocks"] for neuron in b["neurons"]]
        else:
            found += list(zip(group["layers"], group["neurons"], strict=True))
    return found


def selections(explorer: Any, count: int, seed: int = 0) -> list[float]:
    """Milliseconds until a neuron is selected and told of; the first also looks at the texts."""
    draw = random.Random(seed)
    neurons = neurons_of(explorer)
    times = []
    for layer, neuron in draw.sample(neurons, min(count, len(neurons))):
        began = time.perf_counter()
        explorer.select(layer, neuron)
        times.append(1000 * (time.perf_counter() - began))
        assert explorer.error is None, explorer.error
    return times


def p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]


def explorers(gl: Any) -> Iterator[tuple[str, Any, float]]:
    """Name and explorer, one after the other, and the seconds to its first picture."""
    from gumlab.course.explore import page

    began = time.perf_counter()
    tabs = page("tiny-gpt2", "restaurants")
    for number, name in enumerate(tabs._tabs):
        if number:
            began = time.perf_counter()
            tabs.selected_index = number
        first = time.perf_counter() - began
        _, explorer = tabs.children[number].children  # below its question
        yield name, explorer, first
    began = time.perf_counter()
    explorer = gl.explore.claims(gl.paper.all_runs())
    yield "claims", explorer, time.perf_counter() - began


def main() -> None:
    args = harness.parsed(harness.options(__doc__))
    import gumlab as gl

    gl.start(seed=0, threads=1)
    rows = []
    worst = dict.fromkeys(BUDGET, 0.0)
    moves = 4 if args.quick else MOVES
    for name, explorer, first in itertools.islice(explorers(gl), 3 if args.quick else None):
        row = {"explorer": name, "first picture, s": f"{first:.1f}"}
        timed = answers(explorer, moves)
        selected = selections(explorer, moves)
        if selected:
            row[f"{SELECTED}: the first, ms"] = f"{selected[0]:.0f}"
            timed[SELECTED] = selected[1:]
        for visit, times in timed.items():
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
        "not its picture. Timed until picture and sentence are given to the browser. A neuron "
        "selected: as by a click; the first selection also looks at the texts that it tells of. "
        "The first explorer's first picture includes loading the model.\n\n"
        f"{harness.markdown(rows)}\n{''.join(verdicts)}"
    )
    harness.write(args, "explorers.md", text)


if __name__ == "__main__":
    main()
