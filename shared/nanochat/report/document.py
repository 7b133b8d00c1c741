"""A page as blocks, before it is Markdown or HTML. Every text here is plain: what writes it out escapes it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from nanochat.charts import Point


@dataclass(frozen=True, kw_only=True)
class Curve:
    name: str
    points: Sequence[Point]


@dataclass(frozen=True, kw_only=True)
class LineChart:
    """Values over steps. At least one curve, each with at least one point."""

    title: str
    curves: Sequence[Curve]
    x_name: str = "step"


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A value of one series; `error` is its standard error, where it has one."""

    series: str
    value: float
    error: float | None = None


@dataclass(frozen=True, kw_only=True)
class BarChart:
    """Groups of bars by label: at least one group with at least one bar. `series` gives the order of colours."""

    title: str
    series: Sequence[str]
    groups: Sequence[tuple[str, Sequence[Bar]]]
    is_share: bool = False  # values are ratios, shown in percent, on a scale that ends at 100%


Chart = LineChart | BarChart


@dataclass(frozen=True, kw_only=True)
class Text:
    text: str


@dataclass(frozen=True, kw_only=True)
class Notice:
    """Something that a reader must not miss."""

    text: str
    is_error: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """All columns but the first are numbers unless `is_text`. `is_folded`: what few will look for."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    is_folded: bool = False
    is_text: bool = False


@dataclass(frozen=True, kw_only=True)
class Charts:
    charts: Sequence[Chart]


@dataclass(frozen=True, kw_only=True)
class Exchanges:
    """Prompts and what a model said to each: any text at all."""

    caption: str
    exchanges: Sequence[tuple[str, str]]


Block = Text | Notice | Table | Charts | Exchanges


@dataclass(frozen=True, kw_only=True)
class Section:
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, kw_only=True)
class Document:
    """`figures`: the few numbers that say most, each with what it is."""

    title: str
    lead: str
    notices: Sequence[Notice] = field(default_factory=tuple)
    figures: Sequence[tuple[str, str]] = field(default_factory=tuple)
    sections: Sequence[Section] = field(default_factory=tuple)
