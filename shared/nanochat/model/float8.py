"""Training with products in 8-bit floats: which linear maps take part, and what they need.

torchao's float8 with one scale a tensor, found anew at each use: e4m3 for inputs and weights, e5m2 for gradients of
outputs. The weights themselves stay float32, and evaluation computes with them as ever: a map leaves float8 with
model.eval() and comes back with model.train().
"""

import dataclasses
import logging
from typing import Any

import torch
from torch import nn

from nanochat.errors import InvalidConfig
from nanochat.model.gpt import GPT, Linear
from nanochat.model.precision import is_nvidia

log = logging.getLogger(__name__)

MULTIPLE = 16  # of every dimension of a product, tokens included: the hardware's
MIN_SIZE = 128  # below, scaling costs more than the product gains
MIN_CAPABILITY = (9, 0)


def require_float8(device: torch.device) -> None:
    """Raises InvalidConfig, saying what is missing."""
    obstacle = hopper_obstacle(device)
    if obstacle is None and (missing := _missing_package()) is not None:
        obstacle = f"needs the package torchao, which cannot be imported here ({missing}); pip install torchao"
    if obstacle is not None:
        raise InvalidConfig(f"precision fp8 {obstacle}. Or use auto, bf16, fp16 or fp32.", param="precision")


def hopper_obstacle(device: torch.device) -> str | None:
    """Why a device does not multiply 8-bit floats; None where it does."""
    if not is_nvidia(device):
        return f"needs an NVIDIA GPU of Hopper's generation or newer, and this is {device.type}"
    if torch.cuda.get_device_capability(device) < MIN_CAPABILITY:
        major, minor = torch.cuda.get_device_capability(device)
        return f"needs a GPU of Hopper's generation (sm90) or newer, and this one is sm{major}{minor}"
    return None


def float8_linears(model: GPT) -> dict[str, Linear]:
    """Linear maps that are computed in float8, by module name: both dimensions divide by 16 and are 128 or more.

    Not the head, whose product is the loss's own (loss.py).
    """
    linears = {name: module for name, module in model.named_modules() if isinstance(module, Linear) and name != "head"}
    return {name: linear for name, linear in linears.items() if all(map(_suits, linear.weight.shape))}


def use_float8(model: GPT, num_tokens: int, *, emulate: bool = False) -> None:
    """Let the maps that suit be computed in float8 while the model trains, in products over num_tokens tokens.

    emulate: round to float8 and multiply in float32, which any device can. Raises InvalidConfig where no map suits, or
    the number of tokens does not.
    """
    linears = float8_linears(model)
    if not linears:
        raise InvalidConfig(
            f"precision is fp8, and no linear map of this model has two dimensions of {MIN_SIZE} or more that divide "
            f"by {MULTIPLE}; make it wider, or use another precision.",
            param="precision",
        )
    if num_tokens % MULTIPLE:
        raise InvalidConfig(
            f"precision is fp8, and the {num_tokens} tokens of a micro-batch do not divide by {MULTIPLE}; change "
            "device_batch_size or max_seq_len.",
            param="device_batch_size",
        )
    for linear in linears.values():
        linear.float8 = _converted(linear, emulate)
    log.info("float8_used", extra={"num_linears": len(linears), "names": sorted(linears)})


def _suits(size: int) -> bool:
    return size >= MIN_SIZE and size % MULTIPLE == 0


def _converted(linear: Linear, emulate: bool) -> Any:
    """torchao's forward over the same weight: not its module, which would be a second owner of it."""
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    config = Float8LinearConfig.from_recipe_name("tensorwise")
    out_features, in_features = linear.weight.shape
    plain = nn.Linear(in_features, out_features, bias=False, device="meta")
    plain.weight = linear.weight
    converted = convert_to_float8_training(plain, config=dataclasses.replace(config, emulate=emulate))
    return converted.forward


def _missing_package() -> str | None:
    try:
        import torchao.float8  # noqa: F401
    except ImportError as exc:
        return str(exc)
    return None
