"""Serving with products in 8-bit floats: weights stored as e4m3 with a scale an output, activations with one a row.

Half the memory that bfloat16 weights take, and that decoding reads. A row never depends on its neighbours. Training
has a way of its own (float8.py).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nanochat.errors import InvalidConfig
from nanochat.model.float8 import float8_linears, hopper_obstacle
from nanochat.model.gpt import GPT

_DTYPE = torch.float8_e4m3fn
_LARGEST = torch.finfo(_DTYPE).max
_ROWS = F.ScalingType.RowWise


class Float8Linear(nn.Module):
    """A linear map of fixed weights (out, in); the result has its input's dtype."""

    scale: Tensor  # (1, out)

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        stored, scale = _narrowed(weight.float())
        self.weight = nn.Parameter(stored, requires_grad=False)
        self.register_buffer("scale", scale.T)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out)"""
        rows, scale = _narrowed(x.flatten(0, -2).float())
        dtype = torch.bfloat16 if x.dtype == torch.float16 else x.dtype
        product = F.scaled_mm(rows, self.weight.T, scale, _ROWS, self.scale, _ROWS, output_dtype=dtype)
        return product.to(x.dtype).view(*x.shape[:-1], self.weight.size(0))


def require_float8_weights(device: torch.device) -> None:
    """Raises InvalidConfig, saying what is missing."""
    if obstacle := hopper_obstacle(device):
        raise InvalidConfig(f"precision fp8 {obstacle}. Or use auto, bf16 or fp16.", param="precision")


def store_in_float8(model: GPT) -> None:
    """Put such maps in the place of those that suit (float8.py); for good. The head stays as it is: it decides.

    Works on any device that multiplies so; whether that is worth it, require_float8_weights says.
    """
    for name, linear in float8_linears(model).items():
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, Float8Linear(linear.weight.detach()))


def uses_float8_weights(model: GPT) -> bool:
    return any(isinstance(module, Float8Linear) for module in model.modules())


def _narrowed(rows: Tensor) -> tuple[Tensor, Tensor]:
    """float32 (R, K) -> e4m3 (R, K) and float32 scales (R, 1); a row of zeros has some scale."""
    scale = rows.abs().amax(dim=1, keepdim=True).clamp_(min=1e-12) / _LARGEST
    return (rows / scale).to(_DTYPE), scale
