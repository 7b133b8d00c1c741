"""The trainer's application in this process, on SQLite, with a broker that is away: nothing here needs one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from nanochat.settings import CommonSettings
from nanochat_trainer.app import create_app
from nanochat_trainer.settings import TrainerSettings
from nanochat_trainer.state import TrainerState


@pytest.fixture
def settings(home: Path) -> TrainerSettings:
    common = CommonSettings(home=home, redis_url="redis://127.0.0.1:1/0", data_roots=str(home / "allowed"))
    return TrainerSettings(common=common, promote_timeout_s=0.3, events_poll_s=0.02)


@pytest.fixture
def client(settings: TrainerSettings) -> Iterator[TestClient]:
    app = create_app(settings)
    with TestClient(app, base_url="http://127.0.0.1:8001", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def state(client: TestClient) -> TrainerState:
    found: TrainerState = client.app.state.trainer  # type: ignore[attr-defined]
    return found


def make_dataset(folder: Path, num_shards: int = 2) -> Path:
    """Files that pass for parquet as far as a submission looks."""
    folder.mkdir(parents=True)
    for index in range(num_shards):
        (folder / f"shard_{index:05d}.parquet").write_bytes(b"PAR1" + b"\0" * 16 + b"PAR1")
    return folder


def make_tokenizer(home: Path, name: str) -> Path:
    folder = home / "tokenizers" / name
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text("{}")
    return folder
