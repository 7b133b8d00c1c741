"""python -m nanochat_gateway: serve until told to stop."""

import contextlib
import sys

from pydantic import ValidationError

from nanochat.observability.logs import setup_logs
from nanochat_gateway.app import create_app
from nanochat_gateway.server import DrainingServer
from nanochat_gateway.settings import GatewaySettings


def main() -> int:
    """The exit status: 2 for settings that cannot be, each named on standard error."""
    try:
        settings = GatewaySettings.load()
    except ValidationError as exc:
        for error in exc.errors(include_url=False, include_input=False):
            print(f"nanochat gateway: {'.'.join(map(str, error['loc']))} {error['msg']}", file=sys.stderr)
        return 2
    setup_logs("gateway", settings.common.log_level)
    app = create_app(settings)
    with contextlib.suppress(KeyboardInterrupt):  # raised again by uvicorn once it has stopped in order
        DrainingServer(app, settings, app.state.gateway.drain).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
