"""python -m nanochat_gateway: serve until told to stop."""

import sys
from types import FrameType

import uvicorn
from pydantic import ValidationError

from nanochat.observability.logs import setup_logs
from nanochat_gateway.app import create_app
from nanochat_gateway.drain import Drain
from nanochat_gateway.settings import GatewaySettings


class DrainingServer(uvicorn.Server):
    """Tells `drain` before the server stops taking connections."""

    def __init__(self, config: uvicorn.Config, drain: Drain) -> None:
        super().__init__(config)
        self._drain = drain

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._drain.begin()
        super().handle_exit(sig, frame)


def main() -> int:
    try:
        settings = GatewaySettings.load()
    except ValidationError as exc:
        for error in exc.errors(include_url=False, include_input=False):
            print(f"nanochat gateway: {'.'.join(map(str, error['loc']))} {error['msg']}".strip(), file=sys.stderr)
        return 2
    setup_logs("gateway", settings.common.log_level)
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=settings.shutdown_timeout_s,
    )
    DrainingServer(config, app.state.gateway.drain).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
