"""What one trainer process holds, made by create_app and reached through the request: never a global."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self, cast

from fastapi import Depends, Request

from nanochat.jobs.database import Database
from nanochat.jobs.leases import Leases
from nanochat.jobs.models import ModelStore
from nanochat.jobs.store import JobStore
from nanochat.references import References
from nanochat_trainer.broker import Broker
from nanochat_trainer.metrics import Metrics
from nanochat_trainer.reconciler import Reconciler
from nanochat_trainer.settings import TrainerSettings


@dataclass(frozen=True, kw_only=True)
class TrainerState:
    settings: TrainerSettings
    home: Path
    database: Database
    jobs: JobStore
    leases: Leases
    models: ModelStore
    references: References
    broker: Broker
    metrics: Metrics
    reconciler: Reconciler

    @classmethod
    def build(cls, settings: TrainerSettings) -> Self:
        """Connects to nothing yet."""
        common = settings.common
        database = Database(common.resolved_database_url)
        jobs, leases = JobStore(database), Leases(database)
        broker, metrics = Broker(common.redis_url), Metrics(jobs, leases, common.home_dir)
        return cls(
            settings=settings,
            home=common.home_dir,
            database=database,
            jobs=jobs,
            leases=leases,
            models=ModelStore(database),
            references=References(common.home_dir, common.resolved_data_roots, jobs.get),
            broker=broker,
            metrics=metrics,
            reconciler=Reconciler(
                jobs,
                leases,
                broker,
                metrics,
                interval_s=settings.reconcile_interval_s,
                resend_after_s=settings.resend_after_s,
            ),
        )


def state_of(request: Request) -> TrainerState:
    return cast(TrainerState, request.app.state.trainer)


State = Annotated[TrainerState, Depends(state_of)]
