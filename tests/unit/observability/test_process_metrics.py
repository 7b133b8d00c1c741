import platform
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from nanochat.observability.process_metrics import register_process_metrics


@pytest.fixture
def registry(tmp_path: Path) -> CollectorRegistry:
    registry = CollectorRegistry()
    register_process_metrics(registry, tmp_path / "home")
    return registry


def test_the_disk_of_the_home_is_shown_once_the_home_is_there(registry: CollectorRegistry, tmp_path: Path) -> None:
    assert registry.get_sample_value("nanochat_home_free_bytes") is None
    (tmp_path / "home").mkdir()
    free = registry.get_sample_value("nanochat_home_free_bytes")
    size = registry.get_sample_value("nanochat_home_size_bytes")
    assert free is not None and size is not None
    assert 0 < free < size


def test_a_service_without_files_has_no_disk() -> None:
    registry = CollectorRegistry()
    register_process_metrics(registry)
    assert not [family for family in registry.collect() if "home" in family.name]


def test_version_and_python_are_told(registry: CollectorRegistry) -> None:
    (build,) = [family for family in registry.collect() if family.name == "nanochat_build_info"]
    (sample,) = build.samples
    assert sample.labels["python_version"] == platform.python_version()
    assert sample.labels["version"][0].isdigit()


@pytest.mark.skipif(platform.system() != "Linux", reason="process metrics are read from /proc")
def test_the_process_is_measured(registry: CollectorRegistry) -> None:
    for name in ("cpu_seconds_total", "resident_memory_bytes", "open_fds", "max_fds", "start_time_seconds"):
        assert registry.get_sample_value(f"process_{name}"), name
