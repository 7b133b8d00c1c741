"""python -m nanochat_inference: one replica, configured by NANOCHAT_INFERENCE_* variables."""

import logging
import os
import sys

from nanochat.errors import NanochatError
from nanochat.observability.logs import setup_logs
from nanochat_inference.settings import InferenceSettings

log = logging.getLogger(__name__)


def main() -> int:
    """The exit status: 1 for settings that cannot be on this machine, which is said in one line."""
    settings = InferenceSettings.load()
    setup_logs("inference", settings.common.log_level)
    # OpenMP's threads spin between the many small products of a step, and where another process wants the same cores
    # that costs ten times the speed: 17 tokens/s instead of 181 were seen on two busy cores.
    # The library reads this as it is loaded, so torch, and what imports it, may only come afterwards.
    os.environ["OMP_WAIT_POLICY"] = settings.openmp_wait_policy
    from nanochat_inference.app import create_app
    from nanochat_inference.loaded_model import resolve_device
    from nanochat_inference.server import DrainingServer

    try:
        resolve_device(settings.device)
    except NanochatError as exc:
        log.error("inference_cannot_start", extra={"reason": exc.message})
        return 1
    log.info(
        "inference_starting",
        extra={"host": settings.host, "port": settings.port, "threads": settings.resolved_num_threads},
    )
    DrainingServer(create_app(settings), settings).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
