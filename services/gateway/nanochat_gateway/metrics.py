"""What the gateway counts, in a registry of its own, and the middleware that counts it.

A route's label is its template (/v1/models/{model}), and "unmatched" for addresses that do not exist, so that the set
is closed. nanochat_requests_total and the others are named in the public contract.
"""

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.routing import BaseRoute

from nanochat.observability.metrics import REQUEST_LATENCY_BUCKETS
from nanochat.observability.process_metrics import register_process_metrics
from nanochat.observability.request_id import ASGIApp, Message, Receive, Scope, Send


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "nanochat_requests_total", "Requests answered.", ["route", "status"], registry=self.registry
        )
        self.request_duration = Histogram(
            "nanochat_request_duration_seconds",
            "From a request's first byte to its answer's last one.",
            ["route"],
            buckets=REQUEST_LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.streams_active = Gauge("nanochat_streams_active", "Event streams open to clients.", registry=self.registry)
        self.rejected = Counter(
            "nanochat_rejected_total", "Requests refused, by the error's code.", ["reason"], registry=self.registry
        )
        register_process_metrics(self.registry)


class MetricsMiddleware:
    """Counts each HTTP request once its answer has ended. Plain ASGI."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500
        started = time.monotonic()

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        finally:
            route = _template(scope.get("route"))
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.request_duration.labels(route).observe(time.monotonic() - started)


def _template(route: BaseRoute | None) -> str:
    return str(getattr(route, "path", None) or "unmatched")
