"""Which dtype matrix products run in, and what else depends on the kind of device. Master weights stay float32.

torch calls AMD's GPUs (ROCm) "cuda" too: what is NVIDIA's alone asks is_nvidia.
"""

import torch

from nanochat.errors import InvalidConfig

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def compute_dtype(device: torch.device | str, precision: str = "auto") -> torch.dtype:
    """The dtype of matrix products on a device.

    "auto": bfloat16 on CUDA from sm80 on and on ROCm, float16 on older CUDA (with a gradient scaler), else float32.
    "fp8" computes in bfloat16 what it does not compute in float8. Raises InvalidConfig on an unknown name.
    """
    if precision == "fp8":
        return torch.bfloat16
    if precision in DTYPES:
        return DTYPES[precision]
    if precision != "auto":
        raise InvalidConfig(f"precision is {precision!r}; use auto, fp32, bf16, fp16 or fp8.", param="precision")
    device = torch.device(device)
    if device.type != "cuda":
        return torch.float32
    # Of AMD's, all have it; their capability counts something else.
    if not is_nvidia(device) or torch.cuda.get_device_capability(device) >= (8, 0):
        return torch.bfloat16
    return torch.float16


def is_nvidia(device: torch.device) -> bool:
    """A GPU with NVIDIA's own libraries and capabilities, not one of AMD's."""
    return device.type == "cuda" and torch.version.hip is None


def float64_device(device: torch.device) -> torch.device:
    """Where to compute in float64 what is on a device: there, but for Apple's GPUs, which have none."""
    return torch.device("cpu") if device.type == "mps" else device


def embedding_dtype(dtype: torch.dtype) -> torch.dtype:
    """Embeddings live in the compute dtype; float16 is too narrow for their updates, so they stay float32 there."""
    return torch.float32 if dtype == torch.float16 else dtype
