"""python -m nanochat_trainer"""

import logging
import sys
from pathlib import Path

import uvicorn

from nanochat.errors import NanochatError
from nanochat.files import require_writable
from nanochat.jobs.database import Database
from nanochat.observability.logs import setup_logs
from nanochat_trainer.app import create_app
from nanochat_trainer.settings import TrainerSettings

log = logging.getLogger(__name__)


def main() -> int:
    """The exit status: 1 when the database stays away or cannot be written, which is said in one line."""
    settings = TrainerSettings.load()
    setup_logs("trainer", settings.common.log_level)
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)  # a line for each plugin at every start
    try:
        _prepare_database(settings)
    except NanochatError as exc:
        log.error("trainer_cannot_start", extra={"reason": exc.message})
        return 1
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        timeout_graceful_shutdown=settings.shutdown_timeout_s,
    )
    return 0


def _prepare_database(settings: TrainerSettings) -> None:
    """Wait for it and bring its tables up to date, where a failure is a line yet. Raises Unavailable, InvalidConfig."""
    database = Database(settings.common.resolved_database_url)
    try:
        if database.is_sqlite and database.engine.url.database:
            require_writable(Path(database.engine.url.database).parent)
        database.wait_for_server(settings.database_timeout_s)
        database.upgrade()
    finally:
        database.close()


if __name__ == "__main__":
    sys.exit(main())
