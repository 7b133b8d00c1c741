"""A document as one HTML file that needs no other: no script, no font, no address outside of it.

Whatever a model or a user has written goes through html.escape; should that ever fail, the page's own policy still
lets no script run and nothing be fetched.
"""

import base64
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from functools import cache
from html import escape
from pathlib import Path

from nanochat.numbers import figure
from nanochat.report.document import (
    Block,
    Chart,
    Charts,
    Document,
    Exchanges,
    LineChart,
    Notice,
    Section,
    Table,
    Text,
)
from nanochat.report.drawing import draw, thinned
from nanochat.report.markdown import bar_table

_CSS = Path(__file__).parent / "page.css"
# Rows of a curve's table: the picture has the rest.
_CURVE_ROWS = 12


def to_html(document: Document) -> str:
    numbers = itertools.count()
    body = [
        f"<h1>{escape(document.title)}</h1>",
        f'<p class="lead">{escape(document.lead)}</p>',
        *map(_notice, document.notices),
        _figures(document.figures),
        _contents(document.sections),
        *(_section(section, number, numbers) for number, section in enumerate(document.sections)),
    ]
    head = (
        f'<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{content_security_policy()}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(document.title)}</title>\n<style>{_style()}</style>"
    )
    page = "\n".join(part for part in body if part)
    body_html = f"<body>\n<main>\n{page}\n</main>\n</body>"
    return f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n{body_html}\n</html>\n'


@cache
def content_security_policy() -> str:
    """What a page may do: have the one style sheet that it brings along. For its head, and for who serves it."""
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


@cache
def _style() -> str:
    return _CSS.read_text()


def _contents(sections: Sequence[Section]) -> str:
    links = [f'<li><a href="#section-{i}">{escape(section.title)}</a></li>' for i, section in enumerate(sections)]
    return f'<nav aria-label="Contents"><ul>{"".join(links)}</ul></nav>' if links else ""


def _figures(figures: Sequence[tuple[str, str]]) -> str:
    cells = [f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in figures]
    return f'<dl class="figures">{"".join(cells)}</dl>' if cells else ""


def _section(section: Section, number: int, numbers: Iterator[int]) -> str:
    blocks = "\n".join(_block(block, numbers) for block in section.blocks)
    return f'<section id="section-{number}">\n<h2>{escape(section.title)}</h2>\n{blocks}\n</section>'


def _block(block: Block, numbers: Iterator[int]) -> str:
    match block:
        case Text():
            return f"<p>{escape(block.text)}</p>"
        case Notice():
            return _notice(block)
        case Table():
            return _table_block(block)
        case Charts():
            return f'<div class="charts">{"".join(_chart(chart, next(numbers)) for chart in block.charts)}</div>'
        case Exchanges():
            pairs = "".join(_exchange(*pair) for pair in block.exchanges)
            return f'<h3>{escape(block.caption)}</h3><div class="samples">{pairs}</div>'


def _notice(notice: Notice) -> str:
    kind, role = ("error", "alert") if notice.is_error else ("note", "note")
    return f'<p class="notice {kind}" role="{role}">{escape(notice.text)}</p>'


def _table_block(block: Table) -> str:
    table = _table(block.headings, block.rows, is_text=block.is_text)
    if block.is_folded:
        return f"<details><summary>{escape(block.caption)}</summary>{table}</details>"
    return (f"<h3>{escape(block.caption)}</h3>" if block.caption else "") + table


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, is_text: bool = False) -> str:
    """The first cell of a row is what the row is about. Wide ones scroll by themselves, the page never does."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' if cell else "<td></td>" for cell in headings)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    kind = "table text" if is_text else "table"
    return f'<div class="{kind}" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _chart(chart: Chart, number: int) -> str:
    """The picture, and its numbers for whoever cannot see it or wants them."""
    headings, rows = _curve_table(chart) if isinstance(chart, LineChart) else bar_table(chart)
    numbers = f"<details><summary>Numbers</summary>{_table(headings, rows)}</details>"
    return f"<figure><figcaption>{escape(chart.title)}</figcaption>{draw(chart, f'chart-{number}')}{numbers}</figure>"


def _curve_table(chart: LineChart) -> tuple[list[str], list[list[str]]]:
    """At some steps; a curve that was not measured at one of them has no number there."""
    values = [dict(curve.points) for curve in chart.curves]
    steps = sorted({step for curve in values for step in curve})
    chosen = [step for step, _ in thinned([(step, 0.0) for step in steps], _CURVE_ROWS)]
    rows = [[figure(step), *(figure(curve[step]) if step in curve else "-" for curve in values)] for step in chosen]
    return [chart.x_name, *(curve.name for curve in chart.curves)], rows


def _exchange(prompt: str, text: str) -> str:
    return f"<div><p>{escape(prompt)}</p><pre>{escape(text)}</pre></div>"
