"""The learning curves of a sweep as an SVG: a panel for each config, a line with intervals for each arm."""

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor

from llm2llm.pipelines.sweep.results import CurvePoint
from llm2llm.pipelines.sweep.settings import SweepSettings

COLOURS = ("#8c2d04", "#ec7014", "#08519c", "#238b45", "#6a51a3", "#525252")
MARKS = (
    "m-5 -5l10 10m0 -10l-10 10",
    "m-5 0h10m-5 -5v10",
    "m-4.5 -4.5h9v9h-9z",
    "m0 -6l6 10h-12z",
    "m0 -6l6 6l-6 6l-6 -6z",
    "m-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0",
)
"""Shapes, so that arms can be told apart without colours. More arms than these begin anew, dashed."""
WIDTH, LEFT, TOP, BOTTOM, RIGHT = 470, 56, 40, 330, 28
STEP = 0.05
"""Between two lines of the grid, in accuracy."""


def plot(sweep: SweepSettings, curves: Mapping[tuple[str, str], Sequence[CurvePoint]]) -> str:
    """The SVG.

    Args:
        sweep: Names and order of the arms.
        curves: At least one, none empty.
    """
    configs = list(dict.fromkeys(config for config, _ in curves))
    ends = [end for line in curves.values() for one in line for end in _whisker(one)]
    low = min(max(0, floor(min(ends) / STEP + 1e-9)), round(1 / STEP) - 1)
    high = min(round(1 / STEP), max(ceil(max(ends) / STEP - 1e-9), low + 1))
    parts = []
    for panel, config in enumerate(configs):
        lines = {arm: curves[config, arm] for arm in sweep.arms if (config, arm) in curves}
        parts += _panel(panel * WIDTH, config, lines, list(sweep.arms), (low, high))
    for place, arm in enumerate(sweep.arms):
        x, y = LEFT + 205 * (place % (2 * len(configs))), BOTTOM + 62 + 22 * (place // (2 * len(configs)))
        parts.append(_mark(place, x, y) + f'<text x="{x + 12}" y="{y + 4}">{escape(arm)}</text>')
    height = BOTTOM + 84 + 22 * ((len(sweep.arms) - 1) // (2 * len(configs)))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH * len(configs)} {height}" role="img">'
        f"<title>{escape(sweep.name)}: accuracy against added rows</title>"
        "<style>text{font:12px sans-serif;fill:#333}.title{font-size:14px;font-weight:bold}.grid{stroke:#ddd}</style>"
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _panel(
    shift: int, config: str, lines: Mapping[str, Sequence[CurvePoint]], arms: Sequence[str], ticks: tuple[int, int]
) -> list[str]:
    low, high = ticks
    split = next(iter(lines.values()))[0].split
    most = max([one.added for line in lines.values() for one in line] + [1.0])

    def across(added: float) -> float:
        return round(shift + LEFT + 12 + added / most * (WIDTH - LEFT - 12 - RIGHT), 1)

    def up(accuracy: float) -> float:
        inside = min(max(accuracy / STEP, low), high)
        return round(BOTTOM - (inside - low) / (high - low) * (BOTTOM - TOP), 1)

    parts = [f'<text x="{shift + LEFT}" y="24" class="title">{escape(config)}: accuracy on {escape(split)} rows</text>']
    for tick in range(low, high + 1):
        y = up(tick * STEP)
        parts.append(f'<path class="grid" d="M{shift + LEFT} {y}H{shift + WIDTH - 16}"/>')
        parts.append(f'<text x="{shift + LEFT - 8}" y="{y + 4}" text-anchor="end">{round(100 * tick * STEP)}%</text>')
    longest = max(lines.values(), key=lambda line: line[-1].added)
    for added in sorted({round(one.added) for one in longest}):
        parts.append(f'<text x="{across(added)}" y="{BOTTOM + 18}" text-anchor="middle">{added}</text>')
    parts.append(f'<text x="{shift + WIDTH / 2}" y="{BOTTOM + 36}" text-anchor="middle">rows added to the seeds</text>')
    for arm, line in lines.items():
        place = arms.index(arm)
        # A little apart, so that whiskers do not hide one another.
        nudge = 1.5 * (place - len(arms) / 2)
        drawn = [(across(one.added) + nudge * (one.added > 0), up(one.accuracy.value), one) for one in line]
        places = " ".join(f"{x:.1f},{y}" for x, y, _ in drawn)
        parts.append(f'<polyline fill="none" stroke-width="2" {_stroke(place)} points="{places}"/>')
        for x, y, one in drawn:
            bottom, top = _whisker(one)
            parts.append(f'<path {_stroke(place)} d="M{x:.1f} {up(bottom)}V{up(top)}"/>{_mark(place, x, y)}')
    return parts


def _whisker(one: CurvePoint) -> tuple[float, float]:
    mean = one.accuracy
    return (mean.value if mean.low is None else mean.low), (mean.value if mean.high is None else mean.high)


def _stroke(place: int) -> str:
    dashes = f' stroke-dasharray="{2 + place // len(COLOURS)} 3"' if place >= len(COLOURS) else ""
    return f'stroke="{COLOURS[place % len(COLOURS)]}"{dashes}'


def _mark(place: int, x: float, y: float) -> str:
    return f'<path fill="none" stroke-width="2" {_stroke(place)} d="M{x:.1f} {y}{MARKS[place % len(MARKS)]}"/>'
