"""A Prometheus with the deployment's own configuration and rules, and the stack's ports where containers have names.

It also scrapes what no test machine has, GPUs, and what takes hours, CORE, from a file (standins/) with chosen values.
"""

import contextlib
import math
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from nanochat.cli.ports import any_free_port

FOLDER = Path(__file__).parents[2] / "docker" / "prometheus"
STAND_IN = Path(__file__).parent / "standins" / "gpu_worker.prom"
Labels = dict[str, str]


def needed(command: str) -> str:
    path = shutil.which(command)
    if path is None:
        pytest.skip(f"no {command}: make system-deps installs it")
    return path


class Prometheus:
    def __init__(self, address: str) -> None:
        self.url = f"http://{address}"
        self.started_at = time.time()

    def query(self, expression: str) -> list[tuple[Labels, float]]:
        """What it gives now; nothing, too, while Prometheus starts."""
        return [(item["metric"], float(item["value"][1])) for item in self._ask("query", query=expression)]

    def series(self, expression: str) -> list[list[float]]:
        """What a graph from the start until now would show: each series' finite values."""
        times = {"start": self.started_at, "end": time.time(), "step": 1}
        found = self._ask("query_range", query=expression, **times)
        values = [[float(value) for _, value in item["values"]] for item in found]
        return [kept for line in values if (kept := [value for value in line if math.isfinite(value)])]

    def rules(self) -> list[dict[str, Any]]:
        groups = httpx.get(f"{self.url}/api/v1/rules", timeout=10).json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def _ask(self, what: str, **parameters: Any) -> list[Any]:
        try:
            response = httpx.get(f"{self.url}/api/v1/{what}", params=parameters, timeout=10)
        except httpx.TransportError:
            return []
        if response.status_code == 503:
            return []
        assert response.status_code == 200, response.text
        return list(response.json()["data"]["result"])


@contextlib.contextmanager
def running_prometheus(ports: Mapping[str, int], folder: Path) -> Iterator[Prometheus]:
    """`ports` by service. Scrapes and evaluates every second."""
    command, address = needed("prometheus"), f"127.0.0.1:{any_free_port()}"
    with _stand_in_target() as stand_in:
        config = _configuration(ports, address, stand_in)
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        files = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'db'}"]
        with (
            (folder / "log.txt").open("w") as log,
            subprocess.Popen([command, *files, f"--web.listen-address={address}"], stdout=log, stderr=log) as process,
        ):
            try:
                yield Prometheus(address)
            finally:
                process.terminate()


def _configuration(ports: Mapping[str, int], address: str, stand_in: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    config["global"] = dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), "1s")
    config["rule_files"] = [str(FOLDER / file) for file in config["rule_files"]]
    for job in config["scrape_configs"]:
        if job.pop("dns_sd_configs", None):
            job["static_configs"] = [{"targets": [f"127.0.0.1:{ports[job['job_name']]}"]}]
        else:  # Prometheus itself
            job["static_configs"][0]["targets"] = [address]
    stand_in_job = {"job_name": "stand-in", "static_configs": [{"targets": [stand_in]}]}
    return {**config, "scrape_configs": [*config["scrape_configs"], stand_in_job]}


@contextlib.contextmanager
def _stand_in_target() -> Iterator[str]:
    """The address of a server that answers everything with the chosen metrics."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = STAND_IN.read_bytes()
            self.send_response(200)
            self.send_header("content-type", "text/plain; version=0.0.4")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """No log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
