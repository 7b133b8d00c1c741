"""A gateway between a fake inference and a fake trainer, each a real server on loopback."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from nanochat.settings import CommonSettings
from nanochat_gateway.app import create_app
from nanochat_gateway.replicas import Lookup, system_lookup
from nanochat_gateway.settings import AccessSettings, GatewaySettings
from tests.integration.gateway.fake_inference import FakeInference
from tests.integration.gateway.fake_trainer import FakeTrainer
from tests.integration.gateway.server import serving

GatewayWith = Callable[..., str]


@pytest.fixture(scope="session")
def _inference() -> Iterator[tuple[FakeInference, str]]:
    fake = FakeInference()
    with serving(fake.app) as url:
        yield fake, url


@pytest.fixture(scope="session")
def _trainer() -> Iterator[tuple[FakeTrainer, str]]:
    fake = FakeTrainer()
    with serving(fake.app) as url:
        yield fake, url


@pytest.fixture
def inference(_inference: tuple[FakeInference, str]) -> FakeInference:
    _inference[0].reset()
    return _inference[0]


@pytest.fixture
def trainer(_trainer: tuple[FakeTrainer, str]) -> FakeTrainer:
    _trainer[0].reset()
    return _trainer[0]


def settings_with(**values: Any) -> GatewaySettings:
    """Settings that no variable of this machine changes. `access` may be given as a dictionary of texts."""
    access = AccessSettings.model_validate({"api_keys": "", "admin_keys": "", **values.pop("access", {})})
    return GatewaySettings(access=access, common=CommonSettings(model="nanochat"), **values)


@pytest.fixture
def gateway_with(
    inference: FakeInference,
    trainer: FakeTrainer,
    _inference: tuple[FakeInference, str],
    _trainer: tuple[FakeTrainer, str],
    tmp_path: Path,
) -> Iterator[GatewayWith]:
    """Starts a gateway with these settings, and returns its address."""
    with ExitStack() as servers:

        def start(static: Path = tmp_path / "static", lookup: Lookup = system_lookup, **values: Any) -> str:
            values.setdefault("inference_urls", _inference[1])
            values.setdefault("trainer_url", _trainer[1])
            return servers.enter_context(serving(create_app(settings_with(**values), static, lookup)))

        yield start


@pytest.fixture(scope="session")
def _gateway(_inference: tuple[FakeInference, str], _trainer: tuple[FakeTrainer, str]) -> Iterator[str]:
    settings = settings_with(inference_urls=_inference[1], trainer_url=_trainer[1])
    with serving(create_app(settings)) as url:
        yield url


@pytest.fixture
def gateway(_gateway: str, inference: FakeInference, trainer: FakeTrainer) -> str:
    """The address of a gateway with the default settings, between the fakes."""
    return _gateway


@pytest.fixture
def client(gateway: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway, timeout=10.0, trust_env=False) as client:
        yield client
