"""A sweep as a picture: throughput, first tokens and gaps against the load, in one SVG.

Written by hand: three small charts need no plotting library, which would be the largest package of the command line,
and any browser shows them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT, _GAP = 300, 200, 70
_TOP, _LEFT = 60, 60
_COLOURS = ("#1f6feb", "#d1242f", "#8250df")


@dataclass(frozen=True, kw_only=True)
class Line:
    """`values`: one for each load; None where nothing was measured."""

    name: str
    values: Sequence[float | None]


@dataclass(frozen=True, kw_only=True)
class Chart:
    title: str
    unit: str
    lines: Sequence[Line]


def draw(title: str, load_name: str, loads: Sequence[float], charts: Sequence[Chart]) -> str:
    """The charts side by side. Loads keep equal distances, as they mostly double; values begin at 0."""
    width = _LEFT + len(charts) * (_WIDTH + _GAP)
    height = _TOP + _HEIGHT + 70
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{_LEFT}" y="24" font-size="15">{escape(title)}</text>',
    ]
    for number, chart in enumerate(charts):
        left = _LEFT + number * (_WIDTH + _GAP)
        parts += [f'<g transform="translate({left} {_TOP})">', *_chart(chart, load_name, loads), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _chart(chart: Chart, load_name: str, loads: Sequence[float]) -> list[str]:
    top = _round_up(max((value for line in chart.lines for value in line.values if value is not None), default=1.0))
    xs = [_WIDTH * (i + 0.5) / len(loads) for i in range(len(loads))]
    parts = [f'<text x="0" y="-12" font-weight="bold">{escape(chart.title)}, {escape(chart.unit)}</text>']
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = _HEIGHT * (1 - share)
        parts.append(f'<line x1="0" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="-6" y="{y + 4:.1f}" text-anchor="end" fill="#555">{top * share:g}</text>')
    for x, load in zip(xs, loads, strict=True):
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT + 18}" text-anchor="middle" fill="#555">{load:g}</text>')
    name = escape(load_name)
    parts.append(f'<text x="{_WIDTH / 2}" y="{_HEIGHT + 38}" text-anchor="middle" fill="#555">{name}</text>')
    for number, line in enumerate(chart.lines):
        colour = _COLOURS[number % len(_COLOURS)]
        points = [(x, _HEIGHT * (1 - v / top)) for x, v in zip(xs, line.values, strict=True) if v is not None]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
        parts.append(f'<text x="{70 * number}" y="{_HEIGHT + 58}" fill="{colour}">{escape(line.name)}</text>')
    return parts


def _round_up(value: float) -> float:
    """To 1, 2, 4, 5 or 10 times a power of ten, so that a quarter of it is a short number too."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 5, 10) if step * power >= value * (1 - 1e-9))
