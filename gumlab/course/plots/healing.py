"""Figure of models that are trained after a cut: loss against steps."""

from __future__ import annotations

from collections.abc import Mapping

from gumlab.course.plots.checks import check_count, check_has, check_mapping
from gumlab.course.plots.figure import GREY, RED, STYLES, Plot, new_figure

Trial = tuple[str, str, int]  # a start, a lesson, steps


def healing(tried: Mapping[Trial, float], now: Trial, dense: float) -> Plot:
    """Show the loss against the steps of training, for each start and lesson that was tried.

    Parameters
    ----------
    tried : mapping of (str, str, int) to float
        The test loss by start, lesson and steps.
    now : tuple of (str, str, int)
        The trial that is marked and told in the sentence; one of them.
    dense : float
        The whole model's loss, a dashed line.

    Returns
    -------
    Plot
        A line for each start and lesson, at most eight; the sentence gives the loss, and the share
        of the damage that is healed, where the loss after 0 steps is among the trials.

    Raises
    ------
    GumlabError
        For more than eight lines, and a marked trial that was not made.
    """
    check_mapping("tried", tried, "(start, lesson, steps) to loss")
    check_has("tried", now, tried)
    lines = list(dict.fromkeys((start, lesson) for start, lesson, _ in tried))
    check_count("starts and lessons", lines, len(STYLES))
    figure, (ax,) = new_figure(width=7.5, height=3.8)
    for style, (start, lesson) in zip(STYLES, lines, strict=False):
        points = sorted((n, loss) for (s, x, n), loss in tried.items() if (s, x) == (start, lesson))
        steps, losses = zip(*points, strict=True)
        ax.plot(steps, losses, style.fmt, color=style.colour, label=f"{start}, {lesson}")
    loss = tried[now]
    ax.plot([now[2]], [loss], "o", color=RED, markersize=14, markerfacecolor="none", mew=2)
    ax.axhline(dense, color=GREY, linestyle="--", linewidth=1.2)
    ax.set(yscale="log", xlabel="training steps", ylabel="test loss; dashed: dense")
    low, high = ax.get_ylim()
    ticks = [tick for tick in (0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10) if low < tick < high]
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.yaxis.set_minor_formatter("")
    ax.legend(frameon=False, fontsize=8)
    says = f"{now[0]}, {now[1]}, {now[2]} steps: loss {loss:.3f}"
    before = tried.get((now[0], now[1], 0))
    if before is not None and before > dense:
        says += f"; {(before - loss) / (before - dense):.0%} of the damage is healed"
    return Plot(figure, f"{says}.")
