"""python -m nanochat_worker

SIGTERM: running jobs are asked to stop, write a checkpoint and go back to the queue; then the worker ends.
"""

import logging
import os
import signal
import sys
import threading
import time
import warnings
from typing import Any

from celery.exceptions import SecurityWarning
from celery.signals import worker_ready, worker_shutting_down

from nanochat.errors import Conflict, NanochatError, Unavailable
from nanochat.files import require_writable
from nanochat.jobs.database import Database
from nanochat.jobs.leases import Leases
from nanochat.jobs.store import JobStore
from nanochat.observability.logs import setup_logs
from nanochat_worker.celery_app import create_celery, create_worker
from nanochat_worker.health import HealthServer
from nanochat_worker.metrics import Metrics
from nanochat_worker.pulse import Pulse
from nanochat_worker.runner import CLOSE_PATIENCE_S, Runner
from nanochat_worker.settings import WorkerSettings

log = logging.getLogger(__name__)

# A worker that ends by itself shows its last job's metrics for two scrapes more; within CLOSE_PATIENCE_S.
LAST_SCRAPE_S = 10.0


def main() -> int:
    # Until Celery sets its own. The first process of a container ignores signals that it has no handler for.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    settings = WorkerSettings.load()
    setup_logs("worker", settings.common.log_level)
    # Celery warns of root because of pickled messages; ours are a job's id in JSON.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    try:
        require_writable(settings.common.home_dir)
        database = Database(settings.common.resolved_database_url)
    except NanochatError as exc:
        log.error("worker_cannot_start", extra={"reason": exc.message})
        return 1
    leases, metrics = Leases(database), Metrics(settings.common.home_dir, num_slots=settings.concurrency)
    runner = Runner(settings, JobStore(database), leases, metrics)
    celery = create_celery(settings, runner)
    pulse = Pulse(settings.worker_id, database, leases, celery, metrics)
    try:
        health = HealthServer(settings.metrics_host, settings.metrics_port, metrics, pulse.reasons)
    except Conflict as exc:
        log.error("worker_cannot_start", extra={"reason": exc.message})
        return 1
    with health:
        try:
            database.wait_for_schema(settings.schema_timeout_s)
        except Unavailable as exc:
            log.error("worker_cannot_start", extra={"reason": exc.message})
            return 1
        pulse.start()
        try:
            return _consume(settings, runner, pulse, create_worker(celery, settings))
        finally:
            pulse.stop()
            database.close()


def _consume(settings: WorkerSettings, runner: Runner, pulse: Pulse, worker: Any) -> int:
    """Take messages until a signal ends it; gives the exit status."""

    def on_ready(**_: object) -> None:
        pulse.is_consuming.set()
        runner.retirement.start()

    def on_shutting_down(**_: object) -> None:
        pulse.is_stopping.set()
        runner.stopping.set()
        # Celery waits for its threads without end. Should one hang, the supervisors see us go and end their runs.
        patience_s = settings.stop_grace_s + settings.lost_grace_s + CLOSE_PATIENCE_S
        hurry = threading.Timer(patience_s, _give_up)
        hurry.daemon = True
        hurry.start()

    worker_ready.connect(on_ready)
    worker_shutting_down.connect(on_shutting_down)
    worker.start()
    if runner.retirement.is_over:
        time.sleep(LAST_SCRAPE_S)
    return int(worker.exitcode or 0)


def _give_up() -> None:
    log.error("worker_stopped_hard")
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
