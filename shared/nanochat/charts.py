"""Axes, curves and bars as SVG: what every picture of this project is drawn from.

Written by hand: a few small charts need no plotting library, which would be the largest package of the command line,
and any browser shows them. Everything bears a class beside its colour, so that a page's style sheet (report/page.css)
can give it others at night; a file of its own has none, and looks as its attributes say.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

COLOURS = ("#1f6feb", "#d1242f", "#8250df", "#1a7f37", "#bf8700", "#0a6c74")

Point = tuple[float, float]
# Where along an axis, 0 to 1, and what is written there.
Tick = tuple[float, str]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """From values to shares of its length; `low` and `high` are its ends."""

    low: float
    high: float
    is_log: bool = False

    @classmethod
    def around(cls, values: Sequence[float], *, is_log: bool = False) -> "Axis":
        """With a margin on both sides."""
        low, high = min(values), max(values)
        if is_log:
            return cls(low=low / 1.15, high=high * 1.15, is_log=True)
        margin = (high - low) * 0.08 or abs(high) * 0.01 or 0.01
        return cls(low=low - margin, high=high + margin)

    @classmethod
    def between(cls, low: float, high: float) -> "Axis":
        """Of that length exactly, unless it would have none."""
        return cls(low=low, high=high if high > low else low + 1)

    def share(self, value: float) -> float:
        if self.is_log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[Tick]:
        """Quarters where it is logarithmic; else four to eight round numbers."""
        if self.is_log:
            values = [self.low * (self.high / self.low) ** (quarter / 4) for quarter in range(5)]
            return [(self.share(value), f"{value:.2g}") for value in values]
        step = _round_step((self.high - self.low) / 6)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [(self.share(i * step), short(i * step)) for i in range(first, last + 1)]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What a chart is drawn in, in pixels; the origin is its upper left corner."""

    x: Axis
    y: Axis
    width: int
    height: int

    def at(self, point: Point) -> Point:
        return self.width * self.x.share(point[0]), self.height * (1 - self.y.share(point[1]))

    def draw(self, title: str, x_name: str, x_ticks: Sequence[Tick], y_ticks: Sequence[Tick]) -> list[str]:
        """Title above, lines across, ticks to the left and below, and what x is."""
        parts = [f'<text class="name" x="0" y="-12" font-weight="bold">{escape(title)}</text>'] if title else []
        for share, label in y_ticks:
            y = self.height * (1 - share)
            parts.append(f'<line class="grid" x1="0" x2="{self.width}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
            parts.append(_label(-6, y + 4, label, "end"))
        parts += [_label(self.width * share, self.height + 18, label, "middle") for share, label in x_ticks]
        return [*parts, _label(self.width / 2, self.height + 38, x_name, "middle")]

    def curve(self, points: Sequence[Point], series: int, width: float = 1.5) -> str:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(self.at, points))
        colour = COLOURS[series % len(COLOURS)]
        name = f"line s{series % len(COLOURS)}"
        return f'<polyline class="{name}" points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>'

    def dot(self, point: Point, series: int, *, radius: float = 3, is_hollow: bool = False) -> str:
        x, y = self.at(point)
        colour = COLOURS[series % len(COLOURS)]
        kind = "ring" if is_hollow else "dot"
        look = f'fill="{"white" if is_hollow else colour}" stroke="{colour}"'
        return f'<circle class="{kind} s{series % len(COLOURS)}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" {look}/>'


def legend(x: float, y: float, text: str, series: int) -> str:
    """Words in the colour of what they name."""
    number = series % len(COLOURS)
    return f'<text class="label s{number}" x="{x:.1f}" y="{y:.1f}" fill="{COLOURS[number]}">{escape(text)}</text>'


def picture(title: str, width: int, height: int, charts: Sequence[tuple[int, int, Sequence[str]]]) -> str:
    """A file of its own: charts, each with where its upper left corner lies, under a title."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{charts[0][0] if charts else 60}" y="24" font-size="15">{escape(title)}</text>',
    ]
    for x, y, chart in charts:
        parts += [f'<g transform="translate({x} {y})">', *chart, "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def short(value: float) -> str:
    """A tick's number: 0.25, 400, 12k, 3.5M; never more than five digits."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e4)):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):.4g}{unit}"
    return f"{value:.5g}" if abs(value) >= 1e-4 else ("0" if abs(value) < 1e-12 else f"{value:.1e}")


def _label(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#555">{escape(text)}</text>'


def _round_step(width: float) -> float:
    """The next of 1, 2, 5 or 10 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(width))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= width * (1 - 1e-9))
