"""Servers to test against, each with a home of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from nanochat.cli.ports import any_free_port
from nanochat.jobs.database import Database
from nanochat.jobs.models import ModelStore
from tests.integration.inference.chain_model import ABAB, XYXY, save_chain
from tests.integration.inference.server import Server

Serve = Callable[..., Server]


@pytest.fixture(scope="module")
def make_home(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Homes with two checkpoints: step 1 of nano/sft goes on abab after an a, step 2 xyxy."""

    def make_home() -> Path:
        home = tmp_path_factory.mktemp("home")
        save_chain(home, "nano", 1, ABAB)
        save_chain(home, "nano", 2, XYXY)
        return home

    return make_home


@pytest.fixture(scope="module")
def serve(make_home: Callable[[], Path]) -> Iterator[Serve]:
    """Starts servers with settings by name, each on a home of its own; ready when a step is promoted."""
    servers: list[Server] = []

    def serve(*, promoted: int | None = 1, **settings: object) -> Server:
        home = make_home()
        database = Database(f"sqlite:///{home / 'nanochat.db'}")
        database.upgrade()
        models = ModelStore(database)
        if promoted is not None:
            models.promote("nanochat", f"nano/sft/step_{promoted:06d}")
        server = _start(home, models, settings)
        servers.append(server)
        if promoted is not None:
            server.until(server.is_ready, "the server is ready", 60)
        return server

    yield serve
    for server in servers:
        if server.process.poll() is None:
            server.process.send_signal(signal.SIGINT)
    for server in servers:
        server.process.wait(timeout=20)


def _start(home: Path, models: ModelStore, settings: dict[str, object]) -> Server:
    port = any_free_port()
    environment = {
        **os.environ,
        "NANOCHAT_HOME": str(home),
        "NANOCHAT_INFERENCE_PORT": str(port),
        "NANOCHAT_INFERENCE_NUM_THREADS": "1",
        **{f"NANOCHAT_INFERENCE_{name.upper()}": str(value) for name, value in settings.items()},
    }
    log = home / "inference.log"
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-m", "nanochat_inference"], env=environment, stderr=file)
    return Server(f"http://127.0.0.1:{port}", home, process, log, models)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Matrices this small only lose by sharing them out."""
    torch.set_num_threads(1)
