"""GET /health/live, /health/ready and /metrics on port 8003, answered from a thread of its own."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from nanochat.errors import Conflict
from nanochat_worker.metrics import Metrics


class HealthServer:
    """Listens while inside `with`. `reasons` says what keeps the worker from working; nothing: it is ready.

    Raises Conflict where the port is taken.
    """

    def __init__(self, host: str, port: int, metrics: Metrics, reasons: Callable[[], list[str]]) -> None:
        handler = type("Handler", (_Handler,), {"metrics": metrics, "reasons": staticmethod(reasons)})
        try:
            self._server = ThreadingHTTPServer((host, port), handler)
        except OSError as exc:
            raise Conflict(
                f"cannot listen on {host}, port {port}: {exc.strerror}. "
                "Stop the program that does, or choose with NANOCHAT_WORKER_METRICS_PORT."
            ) from exc
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)

    @property
    def port(self) -> int:
        return self._server.server_port

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    metrics: Metrics
    reasons: Callable[[], list[str]]

    def do_GET(self) -> None:
        match self.path.partition("?")[0]:
            case "/health/live":
                self._answer(200, json.dumps({"status": "ok"}).encode())
            case "/health/ready":
                reasons = self.reasons()
                body = {"status": "unavailable" if reasons else "ok", "reasons": reasons}
                self._answer(503 if reasons else 200, json.dumps(body).encode())
            case "/metrics":
                self._answer(200, generate_latest(self.metrics.registry), CONTENT_TYPE_LATEST)
            case _:
                error = {"message": f"there is nothing at {self.path}.", "type": "invalid_request_error"}
                self._answer(404, json.dumps({"error": {**error, "param": None, "code": "not_found"}}).encode())

    def log_message(self, format: str, *args: object) -> None:
        """No access log: the probes come every few seconds."""

    def _answer(self, status: int, body: bytes, content_type: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
