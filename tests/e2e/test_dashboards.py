"""Every panel of every dashboard, and every rule, against a Prometheus that watched real requests and a real run.

A panel's query is asked as Grafana asks it, over the time of the test; it must give numbers.
"""

import json
import re
from pathlib import Path

import httpx
import pytest

from nanochat_worker.gpus import GpuCollector
from tests.e2e.conftest import TINY, RealStack, wait_until
from tests.e2e.scraping import STAND_IN, Prometheus

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[2] / "docker" / "grafana" / "dashboards"
# What Grafana puts in for a panel of an hour and its own settings.
VARIABLES = {"$__rate_interval": "20s", "$job_name": ".*"}
RUN = "watched"
SERVICES = {"gateway", "trainer", "worker", "inference"}
# These depend on how busy the machine is, and how full its disk.
OF_THE_MACHINE = "TimeToFirstTokenHigh|DiskNearlyFull"


def panels() -> list[tuple[str, str, str]]:
    """Dashboard, panel and query."""
    return [
        (file.stem, panel["title"], target["expr"])
        for file in sorted(FOLDER.glob("*.json"))
        for panel in json.loads(file.read_text())["panels"]
        for target in panel.get("targets", [])
    ]


@pytest.fixture(scope="module")
def watched(prometheus: Prometheus, stack: RealStack) -> Prometheus:
    """After answers, refusals and a run that Prometheus has seen."""
    # A rate is between two values: what was counted before the first look at a service is in none.
    wait_until(lambda: seen_services(prometheus) >= SERVICES, "Prometheus has seen all services", 60.0)
    tokenizer = next(job["id"] for job in stack.get("/v1/jobs")["data"] if job["kind"] == "tokenizer")
    # Some seconds of steps between evaluations: a speed is one between two reports, and Prometheus has to pass by.
    steps = {"num_iterations": 600, "eval_every": 300, "save_every": 300}
    config = {**TINY["pretrain"], **steps, "dataset": "python-docs", "tokenizer": tokenizer}
    job = stack.post("/v1/jobs", {"kind": "pretrain", "name": RUN, "config": config})
    for _ in range(3):
        for is_stream in (False, True):
            _chat(stack, stream=is_stream)
    refused = httpx.post(f"{stack.url}/v1/chat/completions", json={"model": "nanochat", "messages": "none"}, timeout=30)
    assert refused.status_code == 400
    wait_until(lambda: stack.job(job["id"])["status"] in ("succeeded", "failed"), "the run ends", 180.0)
    assert stack.job(job["id"])["status"] == "succeeded", stack.job(job["id"])["error"]
    return prometheus


def seen_services(prometheus: Prometheus) -> set[str]:
    return {labels["job"] for labels, _ in prometheus.query("up == 1")}


def _chat(stack: RealStack, *, stream: bool) -> None:
    body = {"model": "nanochat", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8, "stream": stream}
    response = httpx.post(f"{stack.url}/v1/chat/completions", json=body, timeout=60)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(("dashboard", "title", "expr"), panels(), ids=lambda value: value[:40])
def test_every_panel_shows_numbers(watched: Prometheus, dashboard: str, title: str, expr: str) -> None:
    for variable, value in VARIABLES.items():
        expr = expr.replace(variable, value)
    assert "$" not in expr
    wait_until(lambda: watched.series(expr), f"{dashboard} / {title} shows numbers: {expr}", 20.0)


@pytest.mark.parametrize("metric", ["train_loss", "val_bpb", "train_tokens_per_second", "train_mfu_ratio"])
def test_a_run_is_a_series_while_it_runs(watched: Prometheus, metric: str) -> None:
    assert watched.series(f'nanochat_{metric}{{job_name="{RUN}", kind="pretrain"}}')


def test_every_rule_was_evaluated_without_a_fault(watched: Prometheus) -> None:
    def faults() -> list[str]:
        return [f"{rule['name']}: {rule['health']}" for rule in watched.rules() if rule["health"] != "ok"]

    assert len(watched.rules()) > 30
    wait_until(lambda: not faults(), f"all rules are well: {faults()}", 30.0)


def test_a_stack_that_is_well_raises_no_alert(watched: Prometheus) -> None:
    assert watched.query(f'ALERTS{{alertname!~"{OF_THE_MACHINE}"}}') == []


def test_a_runs_series_vanish_after_it(watched: Prometheus) -> None:
    wait_until(lambda: not watched.query(f'{{job_name="{RUN}"}}'), "no series of the run is left", 60.0)


def test_the_chosen_metrics_of_gpus_are_those_of_the_worker() -> None:
    chosen = set(re.findall(r"^# TYPE (nanochat_gpu_\w+) ", STAND_IN.read_text(), re.MULTILINE))
    assert chosen == {family.name for family in GpuCollector().collect()}
