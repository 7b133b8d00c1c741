"""The application: routes, errors, and the service's start and stop around them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from nanochat.loopback import LoopbackGuard
from nanochat.observability.request_id import RequestIdMiddleware
from nanochat_inference.errors import install_error_handlers
from nanochat_inference.pool.devices import find_devices
from nanochat_inference.routes import router
from nanochat_inference.service import InferenceService
from nanochat_inference.settings import InferenceSettings


def create_app(settings: InferenceSettings, devices: list[str] | None = None) -> FastAPI:
    """Nothing runs before the application's start: no thread, no worker, no connection.

    Devices that are not given are looked for then (pool/devices.py).
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        found = await asyncio.to_thread(find_devices, settings.device) if devices is None else devices
        service = InferenceService(settings, found)
        app.state.service = service
        service.start()
        try:
            yield
        finally:
            await service.stop()

    app = FastAPI(title="nanochat inference", lifespan=lifespan, openapi_url=None)
    app.include_router(router)
    install_error_handlers(app)
    app.add_middleware(LoopbackGuard, bound_to=settings.host)
    app.add_middleware(RequestIdMiddleware)
    return app
