"""python -m nanochat_inference: one replica, configured by NANOCHAT_INFERENCE_* variables."""

import logging
import sys

from nanochat.errors import NanochatError
from nanochat.observability.logs import setup_logs
from nanochat_inference.app import create_app
from nanochat_inference.pool.devices import find_devices
from nanochat_inference.server import DrainingServer
from nanochat_inference.settings import InferenceSettings

log = logging.getLogger(__name__)


def main() -> int:
    """The exit status: 1 for settings that cannot be on this machine, which is said in one line."""
    settings = InferenceSettings.load()
    setup_logs("inference", settings.common.log_level)
    try:
        devices = find_devices(settings.device)
    except NanochatError as exc:
        log.error("inference_cannot_start", extra={"reason": exc.message})
        return 1
    log.info(
        "inference_starting",
        extra={
            "host": settings.host,
            "port": settings.port,
            "devices": devices,
            "workers": settings.workers or len(devices),
            "threads": settings.resolved_num_threads,
        },
    )
    DrainingServer(create_app(settings, devices), settings).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
