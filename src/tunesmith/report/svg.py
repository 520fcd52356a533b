"""Small charts as inline SVG: lines, points and bars with labelled axes.

Depends on numbers and geometry only, not on what the numbers mean. Colours are CSS classes (see style.css),
so that a chart follows the page's light or dark scheme. Everything returned is escaped markup.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

Bar = tuple[str, float, str]
"""Name, length as a share of the longest, and text next to it."""

Point = tuple[float, float]
SeriesStyle = Literal["dots", "line", "marks"]

# Wide enough for labels in the largest text that style.css gives to a chart on a narrow page.
MARGIN_LEFT, MARGIN_RIGHT, MARGIN_TOP, MARGIN_BOTTOM = 62, 24, 14, 54
MOST_POINTS = 400  # plotted points per series; more cannot be distinguished and make the file large


@dataclass(frozen=True, slots=True)
class Series:
    """Values to draw as `dots` (faint), as a plain `line`, or as `marks` (a thin line with a mark each)."""

    name: str
    draw: SeriesStyle
    points: Sequence[Point]
    css: str = ""
    """Further classes, such as those that give it a colour of its own."""

    @property
    def classes(self) -> str:
        """Return the classes of its marks and lines, and of its key in a legend."""
        return f"{self.draw} {self.css}".rstrip()


@dataclass(frozen=True, slots=True)
class Frame:
    """The plot area: data ranges, and the size of the view box in user units."""

    x_ticks: Sequence[float]
    y_ticks: Sequence[float]
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    width: int
    height: int

    def x(self, value: float) -> float:
        """Return the position of a data value, in units of the view box."""
        low, high = self.x_range
        return round(
            MARGIN_LEFT + (value - low) / (high - low) * (self.width - MARGIN_LEFT - MARGIN_RIGHT), 1
        )

    def y(self, value: float) -> float:
        """Return the position of a data value, in units of the view box, where y grows downward."""
        low, high = self.y_range
        inner = self.height - MARGIN_TOP - MARGIN_BOTTOM
        return round(MARGIN_TOP + (high - value) / (high - low) * inner, 1)


def line_chart(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    title: str,
    width: int = 640,
    height: int = 288,
    css: str = "chart",
) -> str:
    """Return an <svg> of all series over integer steps; non-finite points are left out, "" if all are."""
    shown = [Series(one.name, one.draw, thin(finite(one.points), MOST_POINTS), one.css) for one in series]
    points = [point for one in shown for point in one.points]
    if not points:
        return ""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    x_low, x_high = widened(min(xs), max(xs))
    y_ticks = ticks(*widened(min(ys), max(ys)), 5)
    x_ticks = [tick for tick in ticks(x_low, x_high, 5) if x_low <= tick <= x_high and tick.is_integer()]
    frame = Frame(x_ticks, y_ticks, (x_low, x_high), (y_ticks[0], y_ticks[-1]), width, height)
    body = "".join(draw_series(one, frame, x_label) for one in shown)
    return wrap(frame, body, x_label=x_label, y_label=y_label, title=title, css=css)


def bar_chart(
    bars: Sequence[tuple[float, float, int]],
    *,
    x_label: str,
    y_label: str,
    title: str,
    width: int = 640,
    height: int = 248,
    css: str = "chart",
) -> str:
    """Return an <svg> of bars (low, high, count) from zero, "" without bars. Bars may differ in width."""
    if not bars:
        return ""
    bars = merged(sorted(bars), MOST_POINTS)
    x_low, x_high = widened(min(low for low, _, _ in bars), max(high for _, high, _ in bars))
    y_ticks = ticks(0, max(1, *(count for _, _, count in bars)), 4)
    x_ticks = [tick for tick in ticks(x_low, x_high, 6) if x_low <= tick <= x_high]
    frame = Frame(x_ticks, y_ticks, (x_low, x_high), (0, y_ticks[-1]), width, height)
    body = "".join(draw_bar(bar, frame, x_label, y_label) for bar in bars)
    return wrap(frame, body, x_label=x_label, y_label=y_label, title=title, css=css)


def draw_series(series: Series, frame: Frame, x_label: str) -> str:
    """Return path and circles of one series; each circle has its values as a tooltip."""
    places = [(frame.x(x), frame.y(y)) for x, y in series.points]
    parts = []
    if series.draw != "dots" and len(places) > 1:
        path = "M" + "L".join(f"{x:g} {y:g}" for x, y in places)
        parts.append(f'<path class="{series.classes}" d="{path}"/>')
    if series.draw != "line" or len(places) == 1:
        radius = 2 if series.draw == "dots" else 4
        for (px, py), (x, y) in zip(places, series.points, strict=True):
            tip = escape(f"{x_label} {x:g}: {series.name} {number(y)}")
            place = f'cx="{px:g}" cy="{py:g}" r="{radius}"'
            parts.append(f'<circle class="{series.classes}" {place}><title>{tip}</title></circle>')
    return "".join(parts)


def draw_bar(bar: tuple[float, float, int], frame: Frame, x_label: str, y_label: str) -> str:
    """Return one bar, with its range and count as a tooltip."""
    low, high, count = bar
    left, right = frame.x(low), frame.x(max(high, low))
    top, bottom = frame.y(count), frame.y(0)
    tip = escape(f"{number(low)} to {number(high)} {x_label}: {number(count)} {y_label}")
    return (
        f'<rect class="bar" x="{left:g}" y="{top:g}" width="{max(right - left - 1, 1):g}" '
        f'height="{max(bottom - top, 0):g}"><title>{tip}</title></rect>'
    )


def wrap(frame: Frame, body: str, *, x_label: str, y_label: str, title: str, css: str) -> str:
    """Return the <svg> with axes, grid and labels around the drawn body."""
    bottom, right = frame.height - MARGIN_BOTTOM, frame.width - MARGIN_RIGHT
    parts = [f'<svg class="{css}" viewBox="0 0 {frame.width} {frame.height}" role="img"']
    parts.append(f' aria-label="{escape(title)}">')
    for tick in frame.y_ticks:
        y = frame.y(tick)
        parts.append(f'<line class="grid" x1="{MARGIN_LEFT}" x2="{right}" y1="{y:g}" y2="{y:g}"/>')
        parts.append(f'<text x="{MARGIN_LEFT - 7}" y="{y:g}" dy=".35em" class="end">{number(tick)}</text>')
    for tick in frame.x_ticks:
        x = frame.x(tick)
        parts.append(f'<line class="tick" x1="{x:g}" x2="{x:g}" y1="{bottom}" y2="{bottom + 4}"/>')
        parts.append(f'<text x="{x:g}" y="{bottom + 7}" dy=".8em" class="middle">{number(tick)}</text>')
    parts.append(f'<line class="axis" x1="{MARGIN_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    middle_x, middle_y = (MARGIN_LEFT + right) / 2, (MARGIN_TOP + bottom) / 2
    parts.append(f'<text x="{middle_x:g}" y="{frame.height - 6}" class="middle">{escape(x_label)}</text>')
    if y_label:
        parts.append(
            f'<text x="14" y="{middle_y:g}" transform="rotate(-90 14 {middle_y:g})" '
            f'class="middle y-name">{escape(y_label)}</text>'
        )
    return "".join(parts) + body + "</svg>"


def ticks(low: float, high: float, about: int) -> list[float]:
    """Return round numbers (1, 2, 2.5 or 5 times a power of ten apart) enclosing low … high; low < high."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def widened(low: float, high: float) -> tuple[float, float]:
    """Return the range itself, or one around a single value, so that its width is not 0."""
    if high - low > 1e-9 * max(abs(low), abs(high)):
        return low, high
    pad = abs(low) * 0.1 or 1.0
    return low - pad, high + pad


def finite(points: Sequence[Point]) -> list[Point]:
    """Return the finite points."""
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def thin(points: Sequence[Point], most: int) -> list[Point]:
    """Return about `most` points: both ends, and the lowest and highest per bucket, so that spikes stay."""
    if len(points) <= most:
        return list(points)
    size = math.ceil(len(points) / (most // 2))
    kept = {0, len(points) - 1}
    for start in range(0, len(points), size):
        bucket = range(start, min(start + size, len(points)))
        kept |= {min(bucket, key=lambda i: points[i][1]), max(bucket, key=lambda i: points[i][1])}
    return [points[index] for index in sorted(kept)]


def merged(bars: Sequence[tuple[float, float, int]], most: int) -> list[tuple[float, float, int]]:
    """Return at most `most` bars: neighbours are merged and their counts added."""
    size = math.ceil(len(bars) / most)
    groups = (bars[start : start + size] for start in range(0, len(bars), size))
    return [(group[0][0], group[-1][1], sum(count for _, _, count in group)) for group in groups]


def smoothed(points: Sequence[Point], window: int) -> list[Point]:
    """Return the centred mean over `window` neighbours.

    At the start, where losses fall fast, the window is narrower on both sides, so that it does not lag; at
    the end it is one-sided, so that one outlier at the end does not bend the line.
    """
    sums = [0.0]
    for _, y in points:
        sums.append(sums[-1] + y)
    result = []
    for index, (x, _) in enumerate(points):
        reach = min(window // 2, index)
        first, last = index - reach, min(index + reach + 1, len(points))
        result.append((x, (sums[last] - sums[first]) / (last - first)))
    return result


def number(value: float) -> str:
    """Return a short text of a number: 0.0005, 2e-5, 12.5, 1,500, 120k, 3.5M."""
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:,.4g}M" if size < 1e9 else f"{value:.3g}".replace("e+0", "e").replace("e+", "e")
    if size >= 1e5:
        return f"{value / 1e3:.4g}k"
    if size >= 1e3:
        return f"{round(value):,}"
    if 0 < size < 1e-4:
        return f"{value:.3g}".replace("e-0", "e-")
    return f"{value:.4g}"
