"""The trainer's application: create_app(settings), never a global."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import anyio.to_thread
from fastapi import FastAPI

from nanochat.loopback import LoopbackGuard
from nanochat.observability.request_id import RequestIdMiddleware
from nanochat_trainer import (
    routes_checkpoints,
    routes_datasets,
    routes_events,
    routes_health,
    routes_jobs,
    routes_models,
    routes_reports,
)
from nanochat_trainer.errors import install_error_handlers
from nanochat_trainer.settings import TrainerSettings
from nanochat_trainer.state import TrainerState


def create_app(settings: TrainerSettings) -> FastAPI:
    state = TrainerState.build(settings)
    app = FastAPI(title="nanochat trainer", lifespan=_lifespan)
    app.state.trainer = state
    routers = (
        routes_health,
        routes_jobs,
        routes_events,
        routes_checkpoints,
        routes_models,
        routes_datasets,
        routes_reports,
    )
    for routes in routers:
        app.include_router(routes.router)
    install_error_handlers(app)
    app.add_middleware(LoopbackGuard, bound_to=settings.host)
    app.add_middleware(RequestIdMiddleware)
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Bring the schema up to date, then reconcile for as long as requests are served."""
    state: TrainerState = app.state.trainer
    await anyio.to_thread.run_sync(state.database.upgrade)
    reconciling = asyncio.create_task(state.reconciler.run())
    try:
        yield
    finally:
        reconciling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reconciling
        state.broker.close()
        state.database.close()
