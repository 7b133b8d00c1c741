"""A real Prometheus scrapes all four services; promtool approves of what they say; docs/metrics.md names it all."""

import re
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import RealStack, wait_until
from tests.e2e.scraping import Prometheus, needed

pytestmark = pytest.mark.slow

SERVICES = ("gateway", "trainer", "inference", "worker")
DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_prometheus_scrapes_all_four_services(prometheus: Prometheus) -> None:
    def are_up() -> bool:
        up = {labels["service"]: value for labels, value in prometheus.query("up") if "service" in labels}
        return up == dict.fromkeys((*SERVICES, "prometheus"), 1.0)

    wait_until(are_up, "all targets are up", 60.0)


@pytest.mark.parametrize(
    "expression",
    [
        'nanochat_requests_total{route="/v1/jobs", status="202"} >= 1',
        "nanochat_request_duration_seconds_count > 0",
        'nanochat_jobs{status="succeeded"} >= 5',
        "nanochat_worker_heartbeat_age_seconds < 30",
        'nanochat_model_info{model="nanochat"} == 1',
        "nanochat_generation_tokens_total > 0",
        'nanochat_job_attempts_total{service="worker", kind="sft", outcome="succeeded"} >= 1',
        'nanochat_job_duration_seconds_count{kind="pretrain"} >= 1',
        "nanochat_train_tokens_total > 0",
        "histogram_quantile(0.95, sum by (le) (nanochat_time_to_first_token_seconds_bucket)) > 0",
    ],
)
def test_queries_return_data(prometheus: Prometheus, stack: RealStack, expression: str) -> None:
    stack.post(
        "/v1/chat/completions",
        {"model": "nanochat", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4},
    )
    wait_until(lambda: prometheus.query(expression), f"{expression} returns data", 30.0)


@pytest.mark.parametrize("service", SERVICES)
def test_promtool_finds_no_fault(stack: RealStack, service: str) -> None:
    promtool = needed("promtool")
    text = httpx.get(f"http://127.0.0.1:{stack.state.ports[service]}/metrics").text
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=30)
    complaints = [line for line in (checked.stdout + checked.stderr).splitlines() if line.startswith("nanochat_")]
    assert complaints == []


@pytest.mark.parametrize("service", SERVICES)
def test_documented_metrics_are_those_that_are_served(stack: RealStack, service: str) -> None:
    section = re.split(rf"^## {service} .*$", DOCUMENT.read_text(), flags=re.MULTILINE)[1].split("\n## ")[0]
    documented = set(re.findall(r"^\| `(nanochat_\w+)`", section, re.MULTILINE))
    text = httpx.get(f"http://127.0.0.1:{stack.state.ports[service]}/metrics").text
    served = {
        name + ("_total" if kind == "counter" and not name.endswith("_total") else "")
        for name, kind in re.findall(r"^# TYPE (nanochat_\w+) (\w+)$", text, re.MULTILINE)
        if not name.endswith("_created")
    }
    assert served == documented
