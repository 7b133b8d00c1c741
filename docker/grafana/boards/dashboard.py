"""A dashboard as Grafana stores it: rows of panels in a grid of 24 columns, and what the reader may choose."""

from collections.abc import Sequence
from dataclasses import dataclass

from boards.panels import DATASOURCE, Json, Panel

# Of Grafana 12; newer ones migrate what they load.
SCHEMA_VERSION = 41
GRID_WIDTH = 24
ROW_HEIGHT = 1


@dataclass(frozen=True)
class Row:
    """Panels beside each other, all of a width; what does not fit into `columns` goes on below."""

    title: str
    panels: Sequence[Panel]
    columns: int = 3


@dataclass(frozen=True)
class Choice:
    """A variable that the reader sets: one value, several or all of a label's."""

    name: str
    label: str
    metric: str

    def json(self) -> Json:
        query = f"label_values({self.metric}, {self.name})"
        return {
            "name": self.name,
            "label": self.label,
            "type": "query",
            "datasource": DATASOURCE,
            "query": {"query": query, "refId": "A"},
            "definition": query,
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
            "options": [],
            "regex": "",
            "hide": 0,
        }


@dataclass(frozen=True)
class Dashboard:
    name: str
    title: str
    about: str
    rows: Sequence[Row]
    choices: Sequence[Choice] = ()

    def json(self) -> Json:
        return {
            "uid": f"nanochat-{self.name}",
            "title": self.title,
            "description": self.about,
            "tags": ["nanochat"],
            "schemaVersion": SCHEMA_VERSION,
            "editable": True,
            "graphTooltip": 1,  # one crosshair for all panels
            "refresh": "10s",
            "time": {"from": "now-1h", "to": "now"},
            "timezone": "browser",
            "templating": {"list": [_datasource_variable(), *(choice.json() for choice in self.choices)]},
            "annotations": {"list": [_alerts_annotation()]},
            "links": [_links()],
            "panels": _placed(self.rows),
        }


def _placed(rows: Sequence[Row]) -> list[Json]:
    """Every panel with an id and its place in the grid, rows below each other."""
    placed: list[Json] = []
    y = 0
    for row in rows:
        header = {"type": "row", "title": row.title, "collapsed": False, "panels": []}
        placed.append({**header, "id": len(placed) + 1, "gridPos": _place(0, y, GRID_WIDTH, ROW_HEIGHT)})
        y += ROW_HEIGHT
        width = GRID_WIDTH // row.columns
        for index, panel in enumerate(row.panels):
            column, line = index % row.columns, index // row.columns
            place = _place(column * width, y + line * panel.height, width, panel.height)
            placed.append({**panel.json(), "id": len(placed) + 1, "gridPos": place})
        num_lines = -(-len(row.panels) // row.columns)
        y += num_lines * row.panels[0].height
    return placed


def _place(x: int, y: int, width: int, height: int) -> Json:
    return {"x": x, "y": y, "w": width, "h": height}


def _datasource_variable() -> Json:
    return {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
        "current": {"text": "Prometheus", "value": "prometheus"},
        "options": [],
        "regex": "",
        "refresh": 1,
        "multi": False,
        "includeAll": False,
        "hide": 0,
    }


def _alerts_annotation() -> Json:
    return {
        "name": "Alerts",
        "datasource": DATASOURCE,
        "enable": True,
        "hide": False,
        "iconColor": "red",
        "expr": 'ALERTS{alertstate="firing"}',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{instance}}",
    }


def _links() -> Json:
    return {
        "title": "nanochat",
        "type": "dashboards",
        "tags": ["nanochat"],
        "asDropdown": False,
        "icon": "external link",
        "includeVars": False,
        "keepTime": True,
        "targetBlank": False,
        "tooltip": "",
        "url": "",
    }
