"""A document as Markdown: tables are tables, a curve is a line of blocks with its ends, a sample stands in a fence."""

import re
from collections.abc import Sequence

from nanochat.charts import Point
from nanochat.numbers import figure, percent
from nanochat.report.document import (
    BarChart,
    Block,
    Chart,
    Charts,
    Document,
    Exchanges,
    LineChart,
    Notice,
    Table,
    Text,
)
from nanochat.report.drawing import thinned

_BLOCKS = "▁▂▃▄▅▆▇█"
_SPARK_LEN = 40
# What could begin markup, HTML or a cell anywhere in a line; an underscore within a word does not.
_SPECIAL = re.compile(r"([\\`*<>\[\]|&~])")


def to_markdown(document: Document) -> str:
    parts = [f"# {escaped(document.title)}", escaped(document.lead), *map(_notice, document.notices)]
    if document.figures:
        parts.append("\n".join(f"- **{escaped(value)}** {escaped(name)}" for name, value in document.figures))
    for section in document.sections:
        parts.append(f"## {escaped(section.title)}")
        parts += [_block(block) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """On one line, and as itself."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _block(block: Block) -> str:
    match block:
        case Text():
            return escaped(block.text)
        case Notice():
            return _notice(block)
        case Table():
            table = _table(block.headings, block.rows, is_text=block.is_text)
            return f"### {escaped(block.caption)}\n\n{table}" if block.caption else table
        case Charts():
            return "\n\n".join(map(_chart, block.charts))
        case Exchanges():
            return "\n\n".join([f"### {escaped(block.caption)}", *(_exchange(*pair) for pair in block.exchanges)])


def _notice(notice: Notice) -> str:
    return f"> **{'Error' if notice.is_error else 'Note'}:** {escaped(notice.text)}"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, is_text: bool = False) -> str:
    lines = [[escaped(cell) for cell in row] for row in (headings, *rows)]
    rule = ["---", *("---" if is_text else "---:" for _ in headings[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (lines[0], rule, *lines[1:]))


def _chart(chart: Chart) -> str:
    if isinstance(chart, LineChart):
        rows = [[curve.name, spark(curve.points), *(figure(y) for y in _ends(curve.points))] for curve in chart.curves]
        return f"**{escaped(chart.title)}**\n\n" + _table(("curve", "", "first", "lowest", "highest", "last"), rows)
    return f"**{escaped(chart.title)}**\n\n" + _table(*bar_table(chart))


def bar_table(chart: BarChart) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of what a bar chart shows: a row a group, a column a series."""
    show = percent if chart.is_share else figure
    rows = []
    for label, bars in chart.groups:
        by_series = {bar.series: bar for bar in bars}
        cells = []
        for series in chart.series:
            bar = by_series.get(series)
            error = f" ± {show(bar.error)}" if bar and bar.error else ""
            cells.append(show(bar.value) + error if bar else "-")
        rows.append([label, *cells])
    return ["", *chart.series], rows


def spark(points: Sequence[Point]) -> str:
    """A curve as a few blocks, the lowest value the lowest block."""
    values = [y for _, y in thinned(points, _SPARK_LEN)]
    low, high = min(values), max(values)
    if high == low:
        return _BLOCKS[0] * len(values)
    return "".join(_BLOCKS[min(7, int(8 * (value - low) / (high - low)))] for value in values)


def _ends(points: Sequence[Point]) -> tuple[float, float, float, float]:
    values = [y for _, y in points]
    return values[0], min(values), max(values), values[-1]


def _exchange(prompt: str, text: str) -> str:
    """Fences longer than any within, so that a sample cannot end its own."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{escaped(prompt)}\n\n{fence}text\n{text}\n{fence}"
