"""Which devices a replica computes on, and who gets which: a worker a GPU, or as many as were asked for.

The replica's own process loads no torch; where an accelerator might be, another process is asked:

    python -m nanochat_inference.pool.devices NAME
"""

import json
import subprocess
import sys
from pathlib import Path

from nanochat.errors import InvalidConfig, Unavailable
from nanochat_inference.settings import InferenceSettings

# Loading torch from a slow disk.
_ASKING_TIMEOUT_S = 180.0
# Nodes of NVIDIA's, AMD's and WSL's drivers.
_ACCELERATORS = ("nvidia[0-9]*", "nvidiactl", "kfd", "dxg")


def find_devices(name: str) -> list[str]:
    """Devices by the name of a setting: auto, cpu, cuda, cuda:1, mps. Takes seconds but for cpu.

    Raises InvalidConfig on a device that is not here, Unavailable where torch cannot be asked.
    """
    if name == "cpu" or (name == "auto" and not _may_have_an_accelerator()):
        return ["cpu"]
    command = [sys.executable, "-m", "nanochat_inference.pool.devices", name]
    try:
        asked = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=_ASKING_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError) as exc:
        raise Unavailable(
            f"torch could not be asked for the devices of this machine ({exc}); the log says why."
        ) from exc
    answer = json.loads(asked.stdout)
    if "error" in answer:
        raise InvalidConfig(answer["error"], param="device")
    devices: list[str] = answer["devices"]
    return devices


def share_out(devices: list[str], settings: InferenceSettings) -> list[InferenceSettings]:
    """The settings of each worker: its device, in turn, and its part of the threads."""
    num_workers = settings.workers or len(devices)
    num_threads = max(1, settings.resolved_num_threads // num_workers)
    return [
        settings.model_copy(update={"device": devices[index % len(devices)], "num_threads": num_threads})
        for index in range(num_workers)
    ]


def _may_have_an_accelerator() -> bool:
    return sys.platform != "linux" or any(any(Path("/dev").glob(pattern)) for pattern in _ACCELERATORS)


def _answer(name: str) -> dict[str, object]:
    import torch

    from nanochat_inference.loaded_model import resolve_device

    try:
        device = resolve_device(name)
    except InvalidConfig as exc:
        return {"error": exc.message}
    if device.type == "cuda" and device.index is None:
        return {"devices": [f"cuda:{index}" for index in range(torch.cuda.device_count())]}
    return {"devices": [str(device)]}


if __name__ == "__main__":
    print(json.dumps(_answer(sys.argv[1])))
