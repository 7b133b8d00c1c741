"""A sweep as a picture: throughput, first tokens and gaps against the load, in one SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nanochat.charts import Axis, Frame, legend, picture

_WIDTH, _HEIGHT, _GAP = 300, 200, 70
_TOP, _LEFT = 60, 60


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
    places = [_LEFT + number * (_WIDTH + _GAP) for number in range(len(charts))]
    drawn = [(x, _TOP, _chart(chart, load_name, loads)) for x, chart in zip(places, charts, strict=True)]
    return picture(title, width, height, drawn)


def _chart(chart: Chart, load_name: str, loads: Sequence[float]) -> list[str]:
    top = _round_up(max((value for line in chart.lines for value in line.values if value is not None), default=1.0))
    xs = [(i + 0.5) / len(loads) for i in range(len(loads))]
    frame = Frame(x=Axis(low=0, high=1), y=Axis(low=0, high=top), width=_WIDTH, height=_HEIGHT)
    quarters = [(share, f"{top * share:g}") for share in (0, 0.25, 0.5, 0.75, 1)]
    ticks = [(x, f"{load:g}") for x, load in zip(xs, loads, strict=True)]
    parts = frame.draw(f"{chart.title}, {chart.unit}", load_name, ticks, quarters)
    for number, line in enumerate(chart.lines):
        points = [(x, v) for x, v in zip(xs, line.values, strict=True) if v is not None]
        parts.append(frame.curve(points, number, width=2))
        parts += [frame.dot(point, number) for point in points]
        parts.append(legend(70 * number, _HEIGHT + 58, line.name, number))
    return parts


def _round_up(value: float) -> float:
    """To 1, 2, 4, 5 or 10 times a power of ten, so that a quarter of it is a short number too."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 5, 10) if step * power >= value * (1 - 1e-9))
