"""Panels as Grafana stores them, from the few words that ours differ in: what they ask, and in which unit.

Where a panel stands and which id it has is the dashboard's business (dashboard.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Query:
    """`legend` may name labels: {{route}}."""

    expr: str
    legend: str = ""

    def target(self, index: int, **more: Any) -> Json:
        return {
            "refId": chr(ord("A") + index),
            "datasource": DATASOURCE,
            "editorMode": "code",
            "expr": self.expr,
            "legendFormat": self.legend or "__auto",
            "range": True,
            **more,
        }


@dataclass(frozen=True)
class Panel:
    """`about` is what a reader learns when he points at the panel's corner."""

    title: str
    unit: str
    queries: Sequence[Query]
    about: str = ""

    type = "timeseries"
    height = 8

    def json(self) -> Json:
        return {
            "type": self.type,
            "title": self.title,
            "description": self.about,
            "datasource": DATASOURCE,
            "fieldConfig": {"defaults": {"unit": self.unit, **self.defaults()}, "overrides": []},
            "options": self.options(),
            "targets": self.targets(),
        }

    def targets(self) -> list[Json]:
        return [query.target(index) for index, query in enumerate(self.queries)]

    def defaults(self) -> Json:
        raise NotImplementedError

    def options(self) -> Json:
        raise NotImplementedError


@dataclass(frozen=True)
class Graph(Panel):
    """Lines over time, from 0 unless `from_zero` is False; `stacked` where their sum means something."""

    stacked: bool = False
    from_zero: bool = True
    max: float | None = None

    def defaults(self) -> Json:
        custom = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 30 if self.stacked else 8,
            "showPoints": "auto",
            "spanNulls": False,
            "stacking": {"mode": "normal" if self.stacked else "none", "group": "A"},
        }
        bounds = {"min": 0 if self.from_zero else None, "max": self.max}
        return {"custom": custom, **{name: bound for name, bound in bounds.items() if bound is not None}}

    def options(self) -> Json:
        return {
            "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }


@dataclass(frozen=True)
class Heatmap(Panel):
    """A histogram's buckets over time. The query gives them summed by (le)."""

    type = "heatmap"

    def targets(self) -> list[Json]:
        return [query.target(index, format="heatmap") for index, query in enumerate(self.queries)]

    def defaults(self) -> Json:
        return {"custom": {"scaleDistribution": {"type": "linear"}}}

    def options(self) -> Json:
        return {
            "calculate": False,
            "cellGap": 1,
            "color": {
                "mode": "scheme",
                "scheme": "Oranges",
                "scale": "exponential",
                "exponent": 0.5,
                "fill": "dark-orange",
                "steps": 64,
                "reverse": False,
            },
            "exemplars": {"color": "rgba(255,0,255,0.7)"},
            "filterValues": {"le": 1e-9},
            "legend": {"show": True},
            "rowsFrame": {"layout": "auto"},
            "showValue": "never",
            "tooltip": {"mode": "single", "yHistogram": False, "showColorScale": False},
            "yAxis": {"axisPlacement": "left", "reverse": False, "unit": self.unit},
        }


@dataclass(frozen=True)
class Number(Panel):
    """The newest value, large. It is orange and red from these values on, or below them with `low_is_bad`."""

    orange: float | None = None
    red: float | None = None
    low_is_bad: bool = False

    type = "stat"
    height = 4

    def defaults(self) -> Json:
        # A step's colour holds from its value upwards.
        steps = [("green", None), ("orange", self.orange), ("red", self.red)]
        if self.low_is_bad:
            worst = None if self.orange is None else self.red
            steps = [("red", None), ("orange", worst), ("green", self.orange or self.red)]
        given = [
            {"color": color, "value": value} for color, value in steps if value is not None or color == steps[0][0]
        ]
        return {"color": {"mode": "thresholds"}, "thresholds": {"mode": "absolute", "steps": given}}

    def options(self) -> Json:
        return {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value",
            "graphMode": "area",
            "justifyMode": "auto",
            "orientation": "auto",
            "textMode": "value_and_name" if any(query.legend for query in self.queries) else "auto",
            "showPercentChange": False,
            "wideLayout": True,
        }
