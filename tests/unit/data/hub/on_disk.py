"""The shards of the fake hub by name, and what of them lies on the disk."""

from pathlib import Path

from tests.unit.data.hub.fake_hub import FakeHub

VALIDATION = "shard_00003.parquet"
FIRST = "shard_00000.parquet"


def names(folder: Path) -> list[str]:
    """Those of shards; nothing incomplete is among them."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if ".part" in path.name)


def assert_right(hub: FakeHub, folder: Path, *expected: str) -> None:
    assert names(folder) == sorted(expected)
    for name in expected:
        assert (folder / name).read_bytes() == hub.files[name]
