"""A document's charts as SVG elements of a page: sized to its column, coloured by its style sheet, read out by name."""

from collections.abc import Sequence
from html import escape

from nanochat.charts import COLOURS, Axis, Frame, Point, legend, short
from nanochat.numbers import figure, percent
from nanochat.report.document import Bar, BarChart, Chart, Curve, LineChart

# Small enough that letters can still be read where a telephone shows it at its own width.
_WIDTH, _LEFT, _RIGHT = 440, 52, 16
_HEIGHT, _TOP, _BELOW = 190, 14, 44
_LEGEND_ROW = 18
_MAX_POINTS = 300
# More than so many dots are a thick line.
_MAX_DOTS = 24
_BAR, _BAR_GAP, _GROUP_GAP = 13, 3, 12
_LABELS, _VALUES = 172, 56


def draw(chart: Chart, identity: str) -> str:
    """`identity` is unlike that of any other chart of the page."""
    body, height = _lines(chart) if isinstance(chart, LineChart) else _bars(chart)
    return "".join(
        [
            f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-labelledby="{identity}-t {identity}-d">',
            f'<title id="{identity}-t">{escape(chart.title)}</title>',
            f'<desc id="{identity}-d">{escape(describe(chart))}</desc>',
            *body,
            "</svg>",
        ]
    )


def describe(chart: Chart) -> str:
    """A chart in a sentence a curve or group."""
    if isinstance(chart, LineChart):
        return " ".join(_describe_curve(curve, chart.x_name) for curve in chart.curves)
    shown = percent if chart.is_share else figure
    sentences = []
    for label, bars in chart.groups:
        sentences.append(f"{label}: " + ", ".join(f"{bar.series} {shown(bar.value)}" for bar in bars) + ".")
    return " ".join(sentences)


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """At most so many, evenly apart, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    last = len(points) - 1
    return [points[round(i * last / (most - 1))] for i in range(most)]


def _describe_curve(curve: Curve, x_name: str) -> str:
    (first_x, first), (last_x, last) = curve.points[0], curve.points[-1]
    if len(curve.points) == 1:
        return f"{curve.name}: {figure(first)} at {x_name} {figure(first_x)}."
    return (
        f"{curve.name}: from {figure(first)} at {x_name} {figure(first_x)} to {figure(last)} at {x_name} "
        f"{figure(last_x)}."
    )


def _lines(chart: LineChart) -> tuple[list[str], int]:
    curves = [(curve.name, thinned(curve.points, _MAX_POINTS)) for curve in chart.curves]
    xs = [x for _, points in curves for x, _ in points]
    ys = [y for _, points in curves for _, y in points]
    frame = Frame(x=Axis.between(min(xs), max(xs)), y=Axis.around(ys), width=_WIDTH - _LEFT - _RIGHT, height=_HEIGHT)
    parts = [f'<g transform="translate({_LEFT} {_TOP})">']
    parts += frame.draw("", chart.x_name, _whole(frame.x), frame.y.ticks())
    for number, (_, points) in enumerate(curves):
        if len(points) > 1:
            parts.append(frame.curve(points, number, width=1.8))
        if len(points) <= _MAX_DOTS:
            parts += [frame.dot(point, number, radius=2.5) for point in points]
    height = _TOP + _HEIGHT + _BELOW
    if len(curves) > 1:
        names = [name for name, _ in curves]
        parts += _legend(names, _HEIGHT + _BELOW + 8)
        height += _LEGEND_ROW * _legend_rows(names)
    return [*parts, "</g>"], height


def _whole(axis: Axis) -> list[tuple[float, str]]:
    """Steps are whole numbers: ticks between them say nothing."""
    return [(share, label) for share, label in axis.ticks() if "." not in label or label[-1] in "kMGT"]


def _bars(chart: BarChart) -> tuple[list[str], int]:
    """Lying, label to the left and value to the right: names of tasks are long."""
    values = [bar.value for _, bars in chart.groups for bar in bars]
    low = min(0.0, *values)
    axis = Axis.between(low, 1.0 if chart.is_share else max(0.0, *values))
    width = _WIDTH - _LABELS - _VALUES
    parts, y = [f'<g transform="translate({_LABELS} 6)">'], 0
    for label, bars in chart.groups:
        middle = y + len(bars) * (_BAR + _BAR_GAP) / 2
        shown = label if len(label) <= 22 else label[:21] + "\N{HORIZONTAL ELLIPSIS}"
        parts.append(f'<text class="tick" x="-8" y="{middle + 3:.1f}" text-anchor="end">{escape(shown)}</text>')
        for bar in bars:
            parts += _bar(chart, bar, axis, width, y)
            y += _BAR + _BAR_GAP
        y += _GROUP_GAP
    zero = width * axis.share(0)
    parts.append(f'<line class="axis" x1="{zero:.1f}" x2="{zero:.1f}" y1="-4" y2="{y - _GROUP_GAP + 4}"/>')
    height = y + 6
    if len(chart.series) > 1:
        parts += _legend(chart.series, y + 8, x=-_LABELS + 8)
        height += _LEGEND_ROW * _legend_rows(chart.series)
    return [*parts, "</g>"], height


def _bar(chart: BarChart, bar: Bar, axis: Axis, width: int, y: int) -> list[str]:
    number = chart.series.index(bar.series) % len(COLOURS)
    begin, end = sorted((width * axis.share(0), width * axis.share(bar.value)))
    parts = [
        f'<rect class="bar s{number}" x="{begin:.1f}" y="{y}" width="{max(0.5, end - begin):.1f}" height="{_BAR}" '
        f'rx="2" fill="{COLOURS[number]}"/>'
    ]
    right = end
    if bar.error:
        ends = [max(axis.low, bar.value - bar.error), min(axis.high, bar.value + bar.error)]
        left, right = (width * axis.share(value) for value in ends)
        middle = y + _BAR / 2
        parts.append(f'<line class="error" x1="{left:.1f}" x2="{right:.1f}" y1="{middle}" y2="{middle}"/>')
    text = percent(bar.value) if chart.is_share else short(round(bar.value, 4))
    parts.append(f'<text class="tick" x="{max(right, end) + 6:.1f}" y="{y + 10}">{text}</text>')
    return parts


def _legend(names: Sequence[str], y: float, x: float = 0) -> list[str]:
    parts, left, row = [], x, 0
    for number, name in enumerate(names):
        if left > x and left + _name_width(name) > _WIDTH - _LEFT:
            left, row = x, row + 1
        parts.append(legend(left, y + _LEGEND_ROW * row, name, number))
        left += _name_width(name)
    return parts


def _legend_rows(names: Sequence[str]) -> int:
    rows, left = 1, 0.0
    for name in names:
        if left and left + _name_width(name) > _WIDTH - _LEFT:
            rows, left = rows + 1, 0.0
        left += _name_width(name)
    return rows


def _name_width(name: str) -> float:
    """About, of letters of 12 pixels, with a gap."""
    return 6.6 * len(name) + 18
