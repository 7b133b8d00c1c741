"""Puts the gateway together: what it holds, in which order a request passes, where its routes are.

A request passes drain -> request id -> metrics -> security headers -> unexpected errors -> key -> route.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from fastapi import FastAPI

from nanochat.observability.request_id import RequestIdMiddleware
from nanochat_gateway import (
    routes_chat,
    routes_completions,
    routes_health,
    routes_jobs,
    routes_models,
)
from nanochat_gateway.drain import ClosingMiddleware
from nanochat_gateway.errors import UnexpectedErrorMiddleware, install_error_handlers
from nanochat_gateway.inference_client import InferenceClient
from nanochat_gateway.keys import KeyRing
from nanochat_gateway.metrics import Metrics, MetricsMiddleware
from nanochat_gateway.peer_http import PeerHttp
from nanochat_gateway.replicas import Lookup, Replicas, system_lookup
from nanochat_gateway.routes_pages import STATIC, install_pages
from nanochat_gateway.security_headers import SecurityHeadersMiddleware
from nanochat_gateway.settings import GatewaySettings
from nanochat_gateway.state import GatewayState
from nanochat_gateway.trainer_client import TrainerClient


def create_app(settings: GatewaySettings, static: Path = STATIC, lookup: Lookup = system_lookup) -> FastAPI:
    # A pool each: streams of the one service, however many, keep nobody from the other.
    inference_http, trainer_http = PeerHttp(), PeerHttp()
    replicas = Replicas(settings.inference_url_list, interval_s=settings.replica_lookup_interval_s, lookup=lookup)
    state = GatewayState(
        settings=settings,
        keys=KeyRing(settings.access),
        inference=InferenceClient(inference_http, settings, replicas),
        trainer=TrainerClient(trainer_http, settings),
        metrics=Metrics(),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        following = asyncio.create_task(replicas.follow())
        try:
            async with inference_http, trainer_http:
                yield
        finally:
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following

    # Bodies are read by body.py, so FastAPI could only describe them wrongly: no generated pages.
    app = FastAPI(
        title="nanochat", lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    app.state.gateway = state
    install_error_handlers(app)
    for module in (routes_chat, routes_completions, routes_models, routes_jobs, routes_health):
        app.include_router(module.router)
    install_pages(app, static)
    # The last one added is the outermost.
    app.add_middleware(UnexpectedErrorMiddleware)
    app.add_middleware(SecurityHeadersMiddleware)
    app.add_middleware(MetricsMiddleware, metrics=state.metrics)
    app.add_middleware(RequestIdMiddleware)
    app.add_middleware(ClosingMiddleware, drain=state.drain)
    return app
