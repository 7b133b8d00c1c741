"""On what a recipe computes: device, precision, number of threads, and whether the model is compiled.

Everything here is a choice that the log names; the arithmetic is the model's.
"""

import logging
import shutil
import sysconfig
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from nanochat.cores import usable_cores
from nanochat.errors import InvalidConfig
from nanochat.model.attention import choose_backend
from nanochat.model.float8 import require_float8
from nanochat.model.gpt import GPT
from nanochat.model.loss import fastest_row_losses
from nanochat.model.precision import DTYPES, compute_dtype

log = logging.getLogger(__name__)

_COMPILERS = ("c++", "g++", "clang++")


class DeviceSettings(BaseSettings):
    """NANOCHAT_DEVICE and NANOCHAT_NUM_THREADS, or OMP_NUM_THREADS as everywhere. 0 threads: all usable cores."""

    model_config = SettingsConfigDict(env_prefix="NANOCHAT_", extra="ignore", populate_by_name=True)

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    num_threads: int = Field(default=0, ge=0, validation_alias=AliasChoices("NANOCHAT_NUM_THREADS", "OMP_NUM_THREADS"))


@dataclass(frozen=True, kw_only=True)
class Device:
    """`dtype` is that of matrix products, `uses_float8` whether those that can be are narrower still in training."""

    device: torch.device
    dtype: torch.dtype
    num_threads: int
    uses_float8: bool = False

    @property
    def matrix_dtype(self) -> torch.dtype:
        """Of Muon's orthogonalisation: float16 has too few exponents for it."""
        return torch.bfloat16 if self.dtype == torch.bfloat16 else torch.float32


def choose_device(precision: str = "auto", *, local_rank: int = 0, settings: DeviceSettings | None = None) -> Device:
    """Choose, set torch's threads, and log it. Raises InvalidConfig for a GPU that is not here or a precision that it
    does not have."""
    settings = settings or DeviceSettings()
    kind = _kind() if settings.device == "auto" else settings.device
    if kind == "cuda" and not torch.cuda.is_available():
        raise InvalidConfig(
            "NANOCHAT_DEVICE is cuda, and torch finds no GPU that it can use; give the worker one, or set auto or cpu."
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise InvalidConfig("NANOCHAT_DEVICE is mps, and torch finds no GPU of Apple's; set auto or cpu.")
    if kind == "cuda" and local_rank >= torch.cuda.device_count():
        raise InvalidConfig(
            f"num_processes asks for GPU {local_rank + 1} of this machine, and torch finds "
            f"{torch.cuda.device_count()}; give as many processes as there are GPUs.",
            param="num_processes",
        )
    device = torch.device(kind, local_rank) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(device)
    uses_float8 = precision == "fp8"
    if uses_float8:
        require_float8(device)
    dtype = compute_dtype(device, precision)
    num_threads = settings.num_threads or usable_cores()
    torch.set_num_threads(num_threads)
    chosen = {"device": str(device), "dtype": str(dtype), "float8": uses_float8, "num_threads": num_threads}
    log.info("device_chosen", extra=chosen)
    return Device(device=device, dtype=dtype, num_threads=num_threads, uses_float8=uses_float8)


def describe_setup(model: GPT, sequence_len: int) -> dict[str, str]:
    """What a model computes with on rows of sequence_len tokens, as protocol.progress.Setup names it."""
    is_compiled = model._compiled_call_impl is not None
    choose = partial(choose_backend, model.device, model.compute_dtype, model.config.head_dim, is_compiled=is_compiled)
    has_windows = any(window < sequence_len - 1 for window in model.config.windows)
    precisions = {dtype: name for name, dtype in DTYPES.items()}
    return {
        "device": model.device.type,
        "precision": "fp8" if model.blocks[0].mlp.up.float8 else precisions[model.compute_dtype],
        "attention": choose(is_windowed=False),
        "window_attention": choose(is_windowed=True) if has_windows else "none",
    }


def compile_model(model: GPT, wanted: bool | None, device: Device) -> None:
    """Let calls of the model go through torch.compile where a C++ compiler is at hand; else leave it as it is.

    On Apple's GPUs, for which torch calls it a prototype, only where it was asked for.

    Raises InvalidConfig where compiling was asked for and cannot be done.
    """
    obstacle = _obstacle_to_compiling(device.device)
    if wanted and obstacle:
        raise InvalidConfig(f"compile is true and {obstacle}; install it, or leave compile out.", param="compile")
    is_prototype = wanted is None and device.device.type == "mps"
    if wanted is False or obstacle or is_prototype:
        reason = obstacle or ("a prototype on mps" if is_prototype else "compile is false")
        log.info("model_not_compiled", extra={"reason": reason})
        return
    log.info("model_compiled", extra={"device": str(device.device)})
    model.compile(dynamic=False)
    model.loss.rows = fastest_row_losses(device.device, model.compute_dtype, compiled=True)


def _kind() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _obstacle_to_compiling(device: torch.device) -> str | None:
    """Why torch.compile would fail here; None where it works."""
    if not any(map(shutil.which, _COMPILERS)):
        return f"there is no C++ compiler ({', '.join(_COMPILERS)})"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return "Python's header files are missing"
    return None
