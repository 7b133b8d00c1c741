"""The HTTP server, which drains before it stops.

SIGTERM: ready turns to 503, streams without an end are closed, and everything else is still answered: for as long as
balancers need to notice, and then until no request is open or the time for it is over; then the sockets close. SIGINT
(Ctrl-C), or a second SIGTERM, does not wait.
"""

import signal
import time
from types import FrameType

import uvicorn
from fastapi import FastAPI

from nanochat_gateway.drain import Drain
from nanochat_gateway.settings import GatewaySettings

# For connections to close once their requests are done or given up.
_CLOSING_TIMEOUT_S = 1


class DrainingServer(uvicorn.Server):
    def __init__(self, app: FastAPI, settings: GatewaySettings, drain: Drain) -> None:
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_CLOSING_TIMEOUT_S,
        )
        super().__init__(config)
        self._drain = drain
        self._drain_timeout_s = settings.drain_timeout_s
        self._drain_delay_s = settings.drain_delay_s
        self._drain_after = self._drain_until = 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On the main thread, between two of its instructions: only sets marks, which on_tick acts upon."""
        if sig == signal.SIGTERM and self.started and not self._drain.is_draining:
            self._drain_after = time.monotonic() + self._drain_delay_s
            self._drain_until = self._drain_after + self._drain_timeout_s
            self._drain.begin()
        else:
            self._drain.begin()
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """uvicorn calls this ten times a second; True ends the server."""
        if self._drain.is_draining and not self.should_exit:
            now = time.monotonic()
            is_idle = now >= self._drain_after and not self.server_state.tasks
            self.should_exit = is_idle or now >= self._drain_until
        return await super().on_tick(counter)
