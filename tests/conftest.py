"""What every test may use: real and golden data where they are, a real Redis, a home of its own. Rooms have more."""

import functools
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic_settings import BaseSettings, SettingsConfigDict

from nanochat.cli.ports import any_free_port
from nanochat.cli.redis_server import find_redis_server, redis_command
from nanochat.errors import Unavailable
from nanochat.native.build import find_compiler

REPOSITORY = Path(__file__).parents[1]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """scheduler.py's for `make test`, which asks for whole files; pytest-xdist's own for all else."""
    if config.getoption("dist") != "loadfile":
        return None
    from tests.scheduler import Scheduler  # pytest-xdist is at hand, since it asks

    return Scheduler(config, log)


class DataSettings(BaseSettings):
    """NANOCHAT_TEST_DATA: the folder with golden/, pretrain/, sft/, tasks/, core/; relative to the repository."""

    model_config = SettingsConfigDict(env_prefix="NANOCHAT_TEST_")

    data: Path = Path("../shared/data")


@pytest.fixture(scope="session", autouse=True)
def certificates() -> Iterator[None]:
    """Read once. Each of httpx's clients reads them anew, longer than most answers take, and tests make thousands."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("httpx._transports.default.create_ssl_context", functools.cache(httpx.create_ssl_context))
        yield


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real and golden data; the test is skipped where there is none, as in a user's clone."""
    folder = (REPOSITORY / DataSettings().data).resolve()
    if not (folder / "golden").is_dir():
        pytest.skip(f"no test data at {folder} (NANOCHAT_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def kernels() -> None:
    """The CPU's kernels; the test is skipped where there are none and nothing to compile them."""
    from nanochat.native import library  # loads torch, which most tests do without

    try:
        library.load()
    except Unavailable as exc:
        if find_compiler() is not None:  # it refuses the sources: no reason to skip what they are tested by
            raise
        pytest.skip(exc.message)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty $NANOCHAT_HOME."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("NANOCHAT_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Redis server for the session. Tests that count keys or messages take a database number of their own."""
    port = any_free_port()
    command = redis_command(find_redis_server(), port, tmp_path_factory.mktemp("redis"))
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            _wait_for_port(port)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()


def _wait_for_port(port: int, deadline_s: float = 15.0) -> None:
    end = time.monotonic() + deadline_s
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
                connection.sendall(b"PING\r\n")
                if connection.recv(7) == b"+PONG\r\n":
                    return
        except OSError:
            pass
        if time.monotonic() > end:
            raise TimeoutError(f"nothing answers on port {port} after {deadline_s} s")
        time.sleep(0.02)
