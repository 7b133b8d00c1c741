"""Prometheus' configuration, rules and alerts: valid, tested, documented, and built on metrics that exist."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[3]
FOLDER = ROOT / "docker" / "prometheus"
RULE_TESTS = sorted(HERE.glob("*.yml"))
OPERATIONS = ROOT / "docs" / "operations.md"
PORTS = {"gateway": 8000, "trainer": 8001, "inference": 8002, "worker": 8003}


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = shutil.which("promtool")
    if command is None:
        pytest.skip("no promtool: make system-deps installs it")
    return subprocess.run([command, *map(str, arguments)], capture_output=True, text=True, timeout=60, cwd=HERE)


def rules(kind: str) -> Iterator[dict[str, Any]]:
    """The rules with that key: alert or record."""
    for file in sorted((FOLDER / "rules").glob("*.yml")):
        for group in yaml.safe_load(file.read_text())["groups"]:
            yield from (rule for rule in group["rules"] if kind in rule)


ALERTS = {rule["alert"]: rule for rule in rules("alert")}
RECORDS = {rule["record"]: rule["expr"] for rule in rules("record")}


def test_there_are_alerts_and_recording_rules() -> None:
    assert len(ALERTS) >= 9
    assert len(ALERTS) == len(list(rules("alert")))
    assert RECORDS


def test_promtool_accepts_configuration_and_rules() -> None:
    checked = promtool("check", "config", FOLDER / "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("file", RULE_TESTS, ids=lambda file: file.stem)
def test_alerts_fire_when_they_should_and_only_then(file: Path) -> None:
    tested = promtool("test", "rules", file)
    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_is_tested_firing_and_silent(name: str) -> None:
    cases = [
        bool(case["exp_alerts"])
        for file in RULE_TESTS
        for test in yaml.safe_load(file.read_text())["tests"]
        for case in test["alert_rule_test"]
        if case["alertname"] == name
    ]
    assert {True, False} <= set(cases)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_grave_it_is_and_where_to_read_on(name: str) -> None:
    assert ALERTS[name]["labels"]["severity"] in ("critical", "warning")
    annotations = ALERTS[name]["annotations"]
    assert annotations["summary"]
    assert annotations["runbook_url"] == f"docs/operations.md#{name.lower()}"


def test_every_alert_has_its_section_and_no_section_is_of_another() -> None:
    # Of the headings only alerts' names are one word in capitals within: QueueStuck.
    sections = re.findall(r"^#+ ((?:[A-Z][a-z]+){2,})$", OPERATIONS.read_text(), re.MULTILINE)
    assert sorted(sections) == sorted(ALERTS)


@pytest.mark.parametrize("name", RECORDS)
def test_a_recorded_name_is_level_metric_and_operation(name: str) -> None:
    assert re.fullmatch(r"[a-z_]+:(nanochat|process)_[a-z_]+:[a-z0-9_]+", name)


def documented_metrics() -> set[str]:
    names = set(
        re.findall(r"^\| `(nanochat_\w+)` \| (\w+) \|", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    )
    parts = {f"{name}_{part}" for name, kind in names if kind == "histogram" for part in ("bucket", "count", "sum")}
    return {name for name, kind in names if kind != "histogram"} | parts


@pytest.mark.parametrize("expr", [*RECORDS.values(), *(alert["expr"] for alert in ALERTS.values())])
def test_rules_ask_for_metrics_that_exist(expr: str) -> None:
    recorded = set(re.findall(r"\w+:\w+:\w+", expr))
    assert recorded <= RECORDS.keys()
    plain = re.sub(r"\w+:\w+:\w+", "", expr)
    assert set(re.findall(r"nanochat_\w+", plain)) <= documented_metrics()


def test_every_service_is_found_by_its_name_and_port() -> None:
    scraped = {
        job["job_name"]: job for job in yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]
    }
    for service, port in PORTS.items():
        (discovery,) = scraped[service]["dns_sd_configs"]
        assert (discovery["names"], discovery["type"], discovery["port"]) == ([service], "A", port)
        assert scraped[service]["relabel_configs"] == [{"target_label": "service", "replacement": service}]
