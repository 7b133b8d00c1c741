"""python -m nanochat_trainer"""

import logging

import uvicorn

from nanochat.observability.logs import setup_logs
from nanochat_trainer.app import create_app
from nanochat_trainer.settings import TrainerSettings


def main() -> None:
    settings = TrainerSettings.load()
    setup_logs("trainer", settings.common.log_level)
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)  # a line for each plugin at every start
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        timeout_graceful_shutdown=settings.shutdown_timeout_s,
    )


if __name__ == "__main__":
    main()
