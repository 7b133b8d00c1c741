"""The dashboards as files: what boards/ makes, whole, in Grafana's own terms, on metrics that exist."""

import copy
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from .grafana_models import misfits

ROOT = Path(__file__).parents[4]
FOLDER = ROOT / "docker" / "grafana"
DASHBOARDS = {file.stem: json.loads(file.read_text()) for file in sorted((FOLDER / "dashboards").glob("*.json"))}
# What Grafana calls its panels today; graph, singlestat and heatmap's old form are gone.
PANEL_TYPES = {"row", "timeseries", "heatmap", "stat"}
UNITS = {"short", "s", "bytes", "percentunit", "reqps", "ops", "celsius", "watt", "suffix: tok/s"}
VARIABLES = {"__rate_interval", "job_name"}


def panels(name: str) -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARDS[name]["panels"] if panel["type"] != "row"]


def expressions(name: str) -> list[str]:
    return [target["expr"] for panel in panels(name) for target in panel["targets"]]


def test_there_are_three_dashboards() -> None:
    assert set(DASHBOARDS) == {"service", "training", "fleet"}
    assert len({dashboard["uid"] for dashboard in DASHBOARDS.values()}) == 3


def test_the_files_are_what_their_source_makes() -> None:
    checked = subprocess.run(
        [sys.executable, FOLDER / "make_dashboards.py", "--check"], capture_output=True, text=True, timeout=30
    )
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_fits_grafanas_published_models(name: str) -> None:
    assert misfits(DASHBOARDS[name]) == []


def set_in(panel_type: str, *path: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def spoil(dashboard: dict[str, Any]) -> None:
        place: Any = next(panel for panel in dashboard["panels"] if panel["type"] == panel_type)
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        set_in("timeseries", "gridPos", "x", value="left"),
        set_in("timeseries", "fieldConfig", "defaults", "custom", "drawStyle", value="scribble"),
        set_in("timeseries", "options", "legend", "colour", value="red"),
        set_in("heatmap", "targets", 0, "format", value="hot"),
        set_in("stat", "options", "colorMode", value=1),
        set_in("stat", "titel", value="misspelt"),
    ],
)
def test_what_does_not_fit_is_found(spoil: Callable[[dict[str, Any]], None]) -> None:
    dashboard = copy.deepcopy(DASHBOARDS["service"])
    spoil(dashboard)
    assert misfits(dashboard)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_have_ids_of_their_own_and_types_of_today(name: str) -> None:
    ids = [panel["id"] for panel in DASHBOARDS[name]["panels"]]
    assert len(set(ids)) == len(ids)
    assert {panel["type"] for panel in DASHBOARDS[name]["panels"]} <= PANEL_TYPES


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_lie_in_the_grid_and_over_no_other(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARDS[name]["panels"]:
        place = panel["gridPos"]
        columns = range(place["x"], place["x"] + place["w"])
        lines = range(place["y"], place["y"] + place["h"])
        assert place["x"] >= 0 and columns.stop <= 24, panel["title"]
        cells = set(itertools.product(columns, lines))
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_panel_asks_the_chosen_prometheus_something_in_a_unit(name: str) -> None:
    assert "datasource" in [variable["type"] for variable in DASHBOARDS[name]["templating"]["list"]]
    for panel in panels(name):
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        assert panel["targets"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        for target in panel["targets"]:
            assert target["expr"].strip()


@pytest.mark.parametrize("name", DASHBOARDS)
def test_thresholds_rise(name: str) -> None:
    for panel in panels(name):
        steps = panel["fieldConfig"]["defaults"].get("thresholds", {"steps": [{"value": None}]})["steps"]
        values = [step["value"] for step in steps[1:]]
        assert steps[0]["value"] is None
        assert values == sorted(set(values)), panel["title"]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_only_variables_that_exist_are_used(name: str) -> None:
    own = {variable["name"] for variable in DASHBOARDS[name]["templating"]["list"]}
    used = {variable for expr in expressions(name) for variable in re.findall(r"\$\{?(\w+)", expr)}
    assert used <= {"__rate_interval"} | own
    assert used <= VARIABLES  # those that the end-to-end test fills in


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_ask_for_metrics_and_recordings_that_exist(name: str) -> None:
    documented = set(re.findall(r"^\| `(nanochat_\w+)`", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE))
    rules = yaml.safe_load((ROOT / "docker" / "prometheus" / "rules" / "recording.yml").read_text())
    recorded = {rule["record"] for group in rules["groups"] for rule in group["rules"]}
    for expr in expressions(name):
        recordings = set(re.findall(r"\w+:\w+:\w+", expr))
        assert recordings <= recorded
        metrics = set(re.findall(r"nanochat_\w+", re.sub(r"\w+:\w+:\w+", "", expr)))
        assert {re.sub(r"_(bucket|sum|count)$", "", metric) for metric in metrics} <= documented


def test_provisioning_names_the_folder_and_the_datasource() -> None:
    folder = FOLDER / "provisioning"
    (provider,) = yaml.safe_load((folder / "dashboards" / "nanochat.yml").read_text())["providers"]
    assert provider["options"]["path"] == "/etc/grafana/dashboards"
    (datasource,) = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert (datasource["type"], datasource["uid"], datasource["url"]) == (
        "prometheus",
        "prometheus",
        "http://prometheus:9090",
    )
    scraped = yaml.safe_load((ROOT / "docker" / "prometheus" / "prometheus.yml").read_text())
    assert datasource["jsonData"]["timeInterval"] == scraped["global"]["scrape_interval"]
