"""The HTTP server, which drains before it stops.

SIGTERM: ready turns to 503 and new requests are refused, both still answered; running requests end; then the sockets
close. Those that have not ended after the drain's time get an error. SIGINT (Ctrl-C), or a second SIGTERM, does not
wait.
"""

import signal
import time
from types import FrameType

import uvicorn
from fastapi import FastAPI

from nanochat_inference.settings import InferenceSettings

# For connections to close once no request is running.
_CLOSING_TIMEOUT_S = 3


class DrainingServer(uvicorn.Server):
    def __init__(self, app: FastAPI, settings: InferenceSettings) -> None:
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=_CLOSING_TIMEOUT_S,
        )
        super().__init__(config)
        self._app = app
        self._drain_timeout_s = settings.drain_timeout_s
        self._drain_until: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On the main thread, between two of its instructions: only sets a mark, which on_tick acts upon."""
        if sig == signal.SIGTERM and self._drain_until is None and hasattr(self._app.state, "service"):
            self._drain_until = time.monotonic() + self._drain_timeout_s
            self._app.state.service.begin_drain()
        else:
            self._stop(sig, frame)

    def _stop(self, sig: int, frame: FrameType | None) -> None:
        if hasattr(self._app.state, "service"):
            self._app.state.service.begin_drain()
            self._app.state.service.abort_all()
        super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """uvicorn calls this ten times a second; True ends the server."""
        if self._drain_until is not None and not self.should_exit:
            service = self._app.state.service
            is_late = time.monotonic() >= self._drain_until
            if is_late and not service.is_idle:
                service.abort_all()
            self.should_exit = is_late or service.is_idle
        return await super().on_tick(counter)
