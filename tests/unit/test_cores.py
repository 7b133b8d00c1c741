"""The number of cores that threads are shared out over."""

from pathlib import Path

import pytest

from nanochat import cores
from nanochat.cores import usable_cores


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000", 8), ("200000 100000", 2), ("250000 100000", 2), ("50000 100000", 1), ("nonsense", 8)],
)
def test_a_containers_quota_limits_the_cores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quota: str, expected: int
) -> None:
    (tmp_path / "cpu.max").write_text(quota + "\n")
    monkeypatch.setattr(cores, "_CPU_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: set(range(8)))
    assert usable_cores() == expected
    monkeypatch.setattr(cores, "_CPU_QUOTA", tmp_path / "missing")
    assert usable_cores() == 8
