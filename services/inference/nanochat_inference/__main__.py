"""python -m nanochat_inference: one replica, configured by NANOCHAT_INFERENCE_* variables."""

import logging

from nanochat.observability.logs import setup_logs
from nanochat_inference.app import create_app
from nanochat_inference.server import DrainingServer
from nanochat_inference.settings import InferenceSettings


def main() -> None:
    settings = InferenceSettings.load()
    setup_logs("inference", settings.common.log_level)
    logging.getLogger(__name__).info(
        "inference_starting",
        extra={"host": settings.host, "port": settings.port, "threads": settings.resolved_num_threads},
    )
    DrainingServer(create_app(settings), settings).run()


if __name__ == "__main__":
    main()
