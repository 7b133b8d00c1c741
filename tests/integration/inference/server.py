"""A real server process, its streams as a client reads them, and what its log says."""

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from nanochat.jobs.models import ModelStore
from nanochat.protocol.generate import Delta, GenerateEvent, Started, generate_event


@dataclass
class Server:
    """A running `python -m nanochat_inference`."""

    url: str
    home: Path
    process: subprocess.Popen[bytes]
    log: Path
    models: ModelStore

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=10)

    def post(self, **body: Any) -> httpx.Response:
        return httpx.post(f"{self.url}/v1/generate", json={"model": "nanochat", "temperature": 0, **body}, timeout=60)

    def stream(self, **body: Any) -> "Stream":
        return Stream(self.url, {"model": "nanochat", "temperature": 0, **body})

    def post_later(self, **body: Any) -> "Future[httpx.Response]":
        """A request on a thread of its own, which may wait for its turn."""
        answer: Future[httpx.Response] = Future()

        def ask() -> None:
            try:
                answer.set_result(self.post(**body))
            except httpx.HTTPError as exc:
                answer.set_exception(exc)

        threading.Thread(target=ask, daemon=True).start()
        return answer

    def metric(self, name: str) -> float:
        """The value of a series, such as nanochat_batch_size_count."""
        lines = self.get("/metrics").text.splitlines()
        return next(float(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == name)

    def until(self, is_so: Callable[[], bool], what: str, deadline_s: float = 20.0) -> None:
        until(is_so, f"{what}; the log says:\n{self.log.read_text()}", deadline_s)

    def is_alive(self) -> bool:
        return self._says_200("/health/live")

    def is_ready(self) -> bool:
        return self._says_200("/health/ready")

    def _says_200(self, path: str) -> bool:
        try:
            return self.get(path).status_code == 200
        except httpx.TransportError:
            return False


class Stream:
    """An open answer. Iterate over its events; close() is the client's leaving."""

    def __init__(self, url: str, body: dict[str, Any]) -> None:
        self._client = httpx.Client(timeout=60)
        request = self._client.build_request("POST", f"{url}/v1/generate", json=body)
        self.response = self._client.send(request, stream=True)
        self._lines = self.response.iter_lines()

    def __iter__(self) -> Iterator[GenerateEvent]:
        for line in self._lines:
            if line:
                yield generate_event.validate_json(line.removeprefix("data: "))

    def start(self) -> Started:
        """Read on to the first text; returns what was started."""
        started = next(event for event in self if isinstance(event, Started))
        next(event for event in self if isinstance(event, Delta))
        return started

    def close(self) -> None:
        self.response.close()
        self._client.close()

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def events_of(response: httpx.Response) -> list[GenerateEvent]:
    assert response.status_code == 200, response.text
    return [generate_event.validate_json(line[6:]) for line in response.text.splitlines() if line]


def text_of(events: list[GenerateEvent], index: int = 0) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta) and event.index == index)


def until(is_so: Callable[[], bool], what: str, deadline_s: float = 20.0) -> None:
    end = time.monotonic() + deadline_s
    while not is_so():
        assert time.monotonic() < end, f"not within {deadline_s} s: {what}"
        time.sleep(0.02)


def logged(server: Server, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]
