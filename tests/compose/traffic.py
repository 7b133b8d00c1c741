"""Somebody who chats without a pause, and what became of each question."""

import collections
import threading
import time
from types import TracebackType
from typing import Self

import httpx

from tests.compose.deployment import Deployment


class Chatter:
    """Inside `with`, one question after the other. `outcomes` counts statuses, and "no answer" where there was none."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._lock = threading.Lock()
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.bodies: collections.Counter[str] = collections.Counter()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(90)

    def num_answered(self) -> int:
        with self._lock:
            return self.outcomes["200"]

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                response = self._deployment.chat(timeout_s=30.0)
                outcome = str(response.status_code)
                said = "" if response.status_code == 200 else response.json()["error"]["message"]
            except httpx.TransportError as exc:
                outcome, said = "no answer", type(exc).__name__
            with self._lock:
                self.outcomes[outcome] += 1
                self.bodies[said] += 1
            if outcome != "200":
                time.sleep(0.5)
