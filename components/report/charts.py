"""Charts as inline SVG: numbers and fixed words in, a string out. The page's style sheet gives the colours.

What a chart says it says without colour too: by the shape of its marks, hatching, and figures beside them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor
from typing import Literal

from llm2llm.components.report.verdict import percent
from llm2llm.components.shared.data.schemas import Split

WIDTH, HEIGHT = 360, 250
LEFT, RIGHT, TOP, BOTTOM = 44, 348, 34, 212  # of the area that the axes enclose
LABEL_ROOM = 40  # units that one figure needs; where there is less, only some marks carry theirs

Fill = Literal["plain", "soft", "hatched"]


@dataclass(frozen=True)
class ChartPoint:
    """An accuracy with its interval; all in [0, 1]."""

    iteration: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Bar:
    """The parts of one iteration's bar, from the bottom up, and the figure above it."""

    iteration: int
    parts: list[int]
    label: str


def accuracy_chart(split: Split, points: Sequence[ChartPoint], best: int, scale: tuple[float, float]) -> str:
    """One split's accuracy over the iterations with its intervals; that of the first is drawn across as a band.

    Args:
        split: Names the chart and decides the shape of its marks.
        points: In the order of the iterations; at least one.
        best: The iteration whose mark is filled.
        scale: The axis' lowest and highest accuracy, the same for all splits.
    """
    low, high = scale
    xs = _places(len(points))

    def y(value: float) -> float:
        return BOTTOM - (value - low) / (high - low) * (BOTTOM - TOP)

    parts = []
    if len(points) > 1:
        top, bottom = y(points[0].high), y(points[0].low)
        parts.append(
            f'<rect class="band" x="{LEFT}" y="{top:.1f}" width="{RIGHT - LEFT}" height="{max(bottom - top, 1):.1f}"/>'
        )
    step = _accuracy_step(high - low)
    ticks = [low + step * i for i in range(round((high - low) / step) + 1)]
    parts += _axis([(y(tick), f"{100 * tick:.0f}%") for tick in ticks])
    line = " ".join(f"{x:.1f},{y(point.value):.1f}" for x, point in zip(xs, points, strict=True))
    parts.append(f'<polyline class="line {split}" points="{line}"/>')
    cap = min(5.0, 0.3 * (RIGHT - LEFT) / len(points))
    for x, point in zip(xs, points, strict=True):
        top, bottom = y(point.high), y(point.low)
        parts.append(
            f'<path class="whisker {split}" d="M{x:.1f} {top:.1f}V{bottom:.1f}'
            f'M{x - cap:.1f} {top:.1f}h{2 * cap:.1f}M{x - cap:.1f} {bottom:.1f}h{2 * cap:.1f}"/>'
        )
        parts.append(_mark(split, x, y(point.value), cap / 5, point.iteration == best))
    figures = [(f"{100 * point.value:.1f}", point.iteration == best) for point in points]
    parts += _figures(xs, [y(point.high) for point in points], figures)
    parts += _iterations(xs, [point.iteration for point in points])
    described = "; ".join(
        f"iteration {p.iteration}: {percent(p.value)} ({percent(p.low)} to {percent(p.high)})" for p in points
    )
    return _svg(f"accuracy-{split}", f"Accuracy on {split} by iteration", f"{described}.", parts, top=14)


def accuracy_scale(points: Sequence[ChartPoint]) -> tuple[float, float]:
    """The lowest and highest value of an axis that holds all intervals, at whole steps."""
    low, high = min(point.low for point in points), max(point.high for point in points)
    step = _accuracy_step(high - low)
    # Rounded first: 0.7 / 0.1 is a little less than 7.
    bottom, top = floor(round(low / step, 6)) * step, ceil(round(high / step, 6)) * step
    return max(0.0, round(bottom, 6)), min(1.0, round(max(top, bottom + step), 6))


def bar_chart(name: str, title: str, parts: Sequence[tuple[str, Fill]], bars: Sequence[Bar], kind: str) -> str:
    """Stacked bars, one for each iteration.

    Args:
        name: Begins the ids inside the drawing.
        title: What it shows, for those who cannot see it.
        parts: What each part of a bar is, and how it is filled; named above the bars when there are several.
        bars: In the order of the iterations; at least one.
        kind: The class that colours them.
    """
    top_value = max(1, *(sum(bar.parts) for bar in bars))
    step = _count_step(top_value)
    top_tick = ceil(top_value / step) * step
    xs = _places(len(bars))
    width = min(46.0, 0.62 * (RIGHT - LEFT) / len(bars))

    def height(value: float) -> float:
        return value / top_tick * (BOTTOM - TOP)

    drawn = [
        f'<defs><pattern id="{name}-hatch" width="6" height="6" patternUnits="userSpaceOnUse" '
        f'patternTransform="rotate(45)"><rect class="paper" width="6" height="6"/>'
        f'<rect class="{kind} stripe" width="3" height="6"/></pattern></defs>'
    ]
    drawn += _axis([(BOTTOM - height(tick), f"{tick:,}") for tick in range(0, top_tick + 1, step)])
    if len(parts) > 1:
        drawn += _legend(name, parts, kind)
    tops = []
    for x, bar in zip(xs, bars, strict=True):
        y = float(BOTTOM)
        for value, (_, fill) in zip(bar.parts, parts, strict=True):
            if value:
                y -= height(value)
                drawn.append(_rect(name, kind, fill, x - width / 2, y, width, height(value)))
        tops.append(y)
    drawn += _figures(xs, tops, [(bar.label, False) for bar in bars])
    drawn += _iterations(xs, [bar.iteration for bar in bars])
    described = "; ".join(
        f"iteration {bar.iteration}: "
        + ", ".join(f"{value:,} {label}" for value, (label, _) in zip(bar.parts, parts, strict=True))
        for bar in bars
    )
    return _svg(name, title, f"{described}.", drawn)


def reliability_chart(split: Split, bins: Sequence[Mapping[str, float]]) -> str:
    """How often answers are right against how sure the student was of them, with 95% intervals; the diagonal is a
    student that is right as often as it is sure.

    Args:
        split: Names the chart and decides the shape of its marks.
        bins: As the summary's `reliability` holds them; at least one.
    """

    def x(value: float) -> float:
        return LEFT + value * (RIGHT - LEFT)

    def y(value: float) -> float:
        return BOTTOM - value * (BOTTOM - TOP)

    ticks = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    parts = _axis([(y(tick), f"{100 * tick:.0f}%") for tick in ticks])
    parts += [_text(min(x(tick), RIGHT - 12), BOTTOM + 17, f"{100 * tick:.0f}%", "tick") for tick in ticks]
    parts.append(_text((LEFT + RIGHT) / 2, BOTTOM + 34, "confidence", "tick"))
    parts.append(f'<path class="diagonal" d="M{x(0):.1f} {y(0):.1f}L{x(1):.1f} {y(1):.1f}"/>')
    for one in bins:
        at = x(one["confidence"])
        parts.append(f'<path class="whisker {split}" d="M{at:.1f} {y(one["high"]):.1f}V{y(one["low"]):.1f}"/>')
        parts.append(_mark(split, at, y(one["accuracy"]), 1.0, True))
    described = "; ".join(
        f"confidence {percent(one['from'])} to {percent(one['to'])}: {percent(one['accuracy'])} of {one['n']:,} right"
        for one in bins
    )
    return _svg(f"reliability-{split}", f"Confidence and accuracy on {split}", f"{described}.", parts, top=14)


def _svg(name: str, title: str, description: str, parts: Sequence[str], top: int = 0) -> str:
    return (
        f'<svg viewBox="0 {top} {WIDTH} {HEIGHT - top}" role="img" aria-labelledby="{name}-title {name}-desc">'
        f'<title id="{name}-title">{escape(title, quote=False)}</title>'
        f'<desc id="{name}-desc">{escape(description, quote=False)}</desc>{"".join(parts)}</svg>'
    )


def _places(number: int) -> list[float]:
    """The x of each iteration."""
    band = (RIGHT - LEFT) / number
    return [LEFT + band * (i + 0.5) for i in range(number)]


def _figures(xs: Sequence[float], tops: Sequence[float], figures: Sequence[tuple[str, bool]]) -> list[str]:
    """The figures above the marks, chosen ones in bold: all while there is room, else those that matter and fit."""
    room = LABEL_ROOM if (RIGHT - LEFT) / len(xs) < LABEL_ROOM else 0
    last = len(xs) - 1
    # Chosen ones first, then the two ends, then the rest.
    order = sorted(range(len(xs)), key=lambda i: (not figures[i][1], i not in (0, last), i))
    placed: list[int] = []
    for i in order if room == 0 else order[:3]:
        if all(abs(xs[i] - xs[other]) >= room for other in placed):
            placed.append(i)
    drawn = []
    for i in sorted(placed):
        # Above its neighbours too, as far as the figure reaches.
        top = min(top for x, top in zip(xs, tops, strict=True) if abs(x - xs[i]) < room / 2 or x == xs[i])
        label, chosen = figures[i]
        # Inside the axes: beside them stand the ticks' labels.
        x = min(max(xs[i], LEFT + 16), RIGHT - 16)
        drawn.append(_text(x, top - 7, label, "figure chosen" if chosen else "figure"))
    return drawn


def _accuracy_step(span: float) -> float:
    return next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 1.0) if span <= 5 * step)


def _count_step(top: int) -> int:
    """1, 2 or 5 times a power of ten, such that at most five steps reach `top`."""
    power = 1
    while True:
        for factor in (1, 2, 5):
            if top <= 5 * factor * power:
                return factor * power
        power *= 10


def _axis(ticks: Sequence[tuple[float, str]]) -> list[str]:
    parts = []
    for y, label in ticks:
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{RIGHT}"/>')
        parts.append(_text(LEFT - 8, y + 4, label, "tick", "end"))
    return parts


def _iterations(xs: Sequence[float], iterations: Sequence[int]) -> list[str]:
    every = ceil(len(xs) / 12)
    parts = [
        _text(x, BOTTOM + 17, str(iteration), "tick")
        for i, (x, iteration) in enumerate(zip(xs, iterations, strict=True))
        if i % every == 0
    ]
    return [*parts, _text((LEFT + RIGHT) / 2, BOTTOM + 34, "iteration", "tick")]


def _legend(name: str, parts: Sequence[tuple[str, Fill]], kind: str) -> list[str]:
    drawn = []
    x = float(LEFT)
    for label, fill in parts:
        drawn.append(_rect(name, kind, fill, x, 3, 11, 11))
        drawn.append(_text(x + 16, 13, label, "key", "start"))
        x += 16 + 6.4 * len(label) + 16
    return drawn


def _rect(name: str, kind: str, fill: Fill, x: float, y: float, width: float, height: float) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    paint = f' fill="url(#{name}-hatch)"' if fill == "hatched" else ""
    return f'<rect class="bar {kind} {fill}" {place}{paint}/>'


def _mark(split: Split, x: float, y: float, size: float, filled: bool) -> str:
    """A circle, a square or a diamond."""
    kind = f"mark {split}{' filled' if filled else ''}"
    if split == "seeds":
        return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{5 * size:.1f}"/>'
    if split == "validation":
        half = 4.5 * size
        place = f'x="{x - half:.1f}" y="{y - half:.1f}" width="{2 * half:.1f}" height="{2 * half:.1f}"'
        return f'<rect class="{kind}" {place}/>'
    side = f"{6.5 * size:.1f}"
    return f'<path class="{kind}" d="M{x:.1f} {y - 6.5 * size:.1f}l{side} {side}l-{side} {side}l-{side} -{side}z"/>'


def _text(x: float, y: float, text: str, kind: str, anchor: str = "middle") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text, quote=False)}</text>'
