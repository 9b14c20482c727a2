"""Draw which part of the package imports which, as a small vector graphic.

    python tools/draw_imports.py OUT.svg

A box is a module or a room right below `gumlab`; it stands above all that it imports. An arrow is
an import that no longer way over other boxes implies. Prints how many there are.
"""

from __future__ import annotations

import argparse
from html import escape
from pathlib import Path

import grimp

BOX_WIDTH, BOX_HEIGHT = 108, 26
GAP_X, GAP_Y = 14, 46
ROOMS_COLOUR, MODULES_COLOUR = "#cfe3f5", "#f4f4f4"


def imports(package: str) -> dict[str, set[str]]:
    """Who imports whom, by the names right below the package."""
    graph = grimp.build_graph(package)
    edges: dict[str, set[str]] = {}
    for module in graph.modules - {package}:
        name = module.split(".")[1]
        edges.setdefault(name, set())
        for imported in graph.find_modules_directly_imported_by(module):
            other = imported.partition(".")[2].partition(".")[0]
            if other and other != name:
                edges[name].add(other)
    return edges


def reachable(edges: dict[str, set[str]], start: str) -> set[str]:
    """All that a name imports, directly or not."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for other in edges[waiting.pop()]:
            if other not in seen:
                seen.add(other)
                waiting.append(other)
    return seen


def circles(edges: dict[str, set[str]]) -> set[str]:
    """The names that import themselves over others."""
    return {name for name in edges if name in reachable(edges, name)}


def levels(edges: dict[str, set[str]]) -> dict[str, int]:
    """How many imports deep the longest way down from each name is; circles count as one step."""
    depth = dict.fromkeys(edges, 0)
    for _ in edges:
        for name, others in edges.items():
            below = [depth[o] for o in others if name not in reachable(edges, o)]
            depth[name] = max([0, *(d + 1 for d in below)])
    return depth


def needed(edges: dict[str, set[str]]) -> list[tuple[str, str]]:
    """The imports that no longer way implies."""
    arrows = []
    for name, others in edges.items():
        for other in others:
            implied = any(other in reachable(edges, third) for third in others - {other})
            if not implied:
                arrows.append((name, other))
    return sorted(arrows)


def drawing(edges: dict[str, set[str]], rooms: set[str]) -> str:
    """The graphic."""
    depth = levels(edges)
    rows: dict[int, list[str]] = {}
    for name in sorted(edges):
        rows.setdefault(depth[name], []).append(name)
    width = max(map(len, rows.values())) * (BOX_WIDTH + GAP_X) + GAP_X
    height = (max(rows) + 1) * (BOX_HEIGHT + GAP_Y) + GAP_Y // 2
    at = {}
    for level, names in rows.items():
        left = (width - len(names) * (BOX_WIDTH + GAP_X) + GAP_X) / 2
        top = height - (level + 1) * (BOX_HEIGHT + GAP_Y)
        for i, name in enumerate(names):
            at[name] = (left + i * (BOX_WIDTH + GAP_X), top)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" font-family="sans-serif" font-size="12" role="img">',
        "<title>Which part of gumlab imports which; each stands above what it imports</title>",
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="white"/>',
    ]
    for name, other in needed(edges):
        x1, y1 = at[name][0] + BOX_WIDTH / 2, at[name][1] + BOX_HEIGHT
        x2, y2 = at[other][0] + BOX_WIDTH / 2, at[other][1]
        middle = (y1 + y2) / 2
        lines.append(
            f'<path d="M{x1:.0f} {y1:.0f} C{x1:.0f} {middle:.0f} {x2:.0f} {middle:.0f} '
            f'{x2:.0f} {y2:.0f}" fill="none" stroke="#8a8a8a"/>'
        )
    for name, (x, y) in at.items():
        colour = ROOMS_COLOUR if name in rooms else MODULES_COLOUR
        lines.append(
            f'<rect x="{x:.0f}" y="{y:.0f}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="4" '
            f'fill="{colour}" stroke="#555"/>'
        )
        label = escape(name) + ("/" if name in rooms else "")
        lines.append(
            f'<text x="{x + BOX_WIDTH / 2:.0f}" y="{y + BOX_HEIGHT / 2 + 4:.0f}" '
            f'text-anchor="middle" fill="#111">{label}</text>'
        )
    lines.append("</svg>")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Draw, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    edges = imports("gumlab")
    package = Path(__import__("gumlab").__file__).parent
    rooms = {name for name in edges if (package / name).is_dir()}
    out.write_text(drawing(edges, rooms), encoding="utf-8")
    in_circles = circles(edges)
    print(
        f"{len(edges) - len(rooms)} modules and {len(rooms)} rooms, "
        f"{sum(map(len, edges.values()))} imports between them, {len(in_circles)} in circles"
        + (f" ({', '.join(sorted(in_circles))})" if in_circles else "")
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
