"""A hub to download from, without waiting between attempts."""

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nanochat.data.hub.download import DownloadProgress, download
from nanochat.data.hub.patience import Patience
from nanochat.data.registry import Dataset
from nanochat.protocol.hub import HubReference
from nanochat.settings import HubSettings
from tests.unit.data.hub.fake_hub import FakeHub, parquet_like

AT_ONCE = Patience(max_attempts=3, first_pause_s=0.0)
Download = Callable[..., Awaitable[Dataset]]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """With four shards of 300 kB, the last one for validation."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    fake = FakeHub()
    for index in range(4):
        fake.files[f"shard_{index:05d}.parquet"] = parquet_like(300_000 + index, seed=index)
    yield fake
    fake.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "datasets" / "text"


@pytest.fixture
def get(hub: FakeHub, folder: Path) -> Download:
    """await get(num_shards=2, source="hf://acme/text", stall_timeout_s=0.2, ...) downloads into `folder`."""

    async def run(
        num_shards: int | None = None,
        source: str = "hf://acme/text",
        progress: DownloadProgress | None = None,
        patience: Patience = AT_ONCE,
        disk: Any = None,
        is_benchmark: bool = False,
        **settings: Any,
    ) -> Dataset:
        chosen = HubSettings(**{"url": hub.url, "stall_timeout_s": 10.0, **settings})
        return await download(
            HubReference.parse(source),
            folder,
            num_shards,
            chosen,
            progress,
            is_benchmark=is_benchmark,
            patience=patience,
            disk=disk,
        )

    return run
