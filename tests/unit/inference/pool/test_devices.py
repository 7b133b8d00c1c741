"""A worker a device unless another number is asked for, and each its part of the cores."""

import pytest

from nanochat.errors import InvalidConfig, Unavailable
from nanochat_inference.pool.devices import find_devices, share_out
from nanochat_inference.settings import InferenceSettings


@pytest.mark.parametrize(
    ("devices", "workers", "threads", "expected"),
    [
        (["cpu"], 0, 4, [("cpu", 4)]),
        (["cpu"], 3, 4, [("cpu", 1)] * 3),
        (["cpu"], 2, 8, [("cpu", 4)] * 2),
        (["cuda:0", "cuda:1"], 0, 4, [("cuda:0", 2), ("cuda:1", 2)]),
        (["cuda:0", "cuda:1"], 3, 1, [("cuda:0", 1), ("cuda:1", 1), ("cuda:0", 1)]),
    ],
)
def test_devices_are_given_in_turn(
    devices: list[str], workers: int, threads: int, expected: list[tuple[str, int]]
) -> None:
    shares = share_out(devices, InferenceSettings(workers=workers, num_threads=threads))
    assert [(share.device, share.num_threads) for share in shares] == expected


def test_a_device_that_is_not_here_and_a_torch_that_cannot_be_asked_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidConfig, match="cannot be used here"):
        find_devices("xpu:7")
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(Unavailable, match="could not be asked"):
        find_devices("cuda")


def test_a_cpu_is_known_without_asking_anybody() -> None:
    assert find_devices("cpu") == ["cpu"]
