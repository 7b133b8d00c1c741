"""Clients that ask without a pause, and what became of every request: an answer, one clear error, or neither."""

import random
import threading
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType

import httpx
import psutil

from nanochat.protocol.generate import Done, GenerateError, Started, generate_event
from tests.integration.inference.server import Server, until

# How a request may end: with all its tokens, with one error event after its beginning, or with a status and a reason.
ANSWERED, BROKEN_OFF, REFUSED = "answered", "broken off", "refused"


@dataclass
class Load:
    """A context in which `num_clients` ask the server; afterwards `ends` counts how requests ended."""

    server: Server
    num_clients: int
    max_tokens: int = 300
    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)  # requests that ended in no allowed way

    def __enter__(self) -> "Load":
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(seed,)) for seed in range(self.num_clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def until_answered(self, count: int, deadline_s: float) -> None:
        """Wait for so many answers, of all since the beginning."""
        until(lambda: self.ends[ANSWERED] >= count, f"{count} answers", deadline_s)

    def _ask(self, seed: int) -> None:
        rng = random.Random(seed)
        with httpx.Client(timeout=120) as client:
            while not self._is_over.is_set():
                tokens = rng.randint(1, self.max_tokens)
                body = {"model": "nanochat", "temperature": 0, "prompt": "a" * rng.randint(1, 50), "max_tokens": tokens}
                try:
                    end = _end(client.post(f"{self.server.url}/v1/generate", json=body), tokens)
                except (httpx.TransportError, AssertionError, ValueError) as exc:
                    self.wrong.append(repr(exc))
                else:
                    self.ends[end] += 1


def _end(response: httpx.Response, max_tokens: int) -> str:
    if response.status_code != 200:
        error = response.json()["error"]
        assert response.status_code == 503 and error["code"] == "unavailable" and error["message"], response.text
        return REFUSED
    events = [generate_event.validate_json(line[6:]) for line in response.text.splitlines() if line]
    assert isinstance(events[0], Started), response.text
    assert sum(isinstance(event, Started | Done | GenerateError) for event in events) == 2, response.text
    if isinstance(events[-1], Done):
        assert events[-1].completion_tokens == max_tokens, response.text
        return ANSWERED
    assert isinstance(events[-1], GenerateError) and events[-1].code == "unavailable", response.text
    return BROKEN_OFF


def workers(server: Server) -> list[psutil.Process]:
    """The processes of its workers, the calculator's aside."""
    return [process for process in psutil.Process(server.process.pid).children() if not is_gone(process)]


def family(server: Server) -> list[psutil.Process]:
    """All that it has started."""
    return psutil.Process(server.process.pid).children(recursive=True)


def kill(process: psutil.Process) -> None:
    """SIGKILL; returns when it has ended, so that it is not killed twice."""
    process.kill()
    until(lambda: is_gone(process), f"process {process.pid} ends")


def is_gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
