"""Rotary position embedding: where a token stands, written into its queries and keys as angles.

Halves are paired (channel i with i + D/2), not neighbours. Positions are given by the caller, one a row and token where
rows differ; the table itself knows nothing of caches.
"""

import torch
from torch import Tensor


def rotary_table(length: int, head_dim: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of every position, (length, D/2) float32 each; computed in float64 and then rounded.

    On the CPU, whatever the default device: not every one has float64.
    """
    channels = torch.arange(0, head_dim, 2, dtype=torch.float64, device="cpu")
    positions = torch.arange(length, dtype=torch.float64, device="cpu")
    angles = torch.outer(positions, base ** -(channels / head_dim))
    return angles.cos().float(), angles.sin().float()


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn x (B, T, H, D) by tables that broadcast to (B, T, 1, D/2); the result has x's dtype."""
    x1, x2 = x.chunk(2, dim=-1)
    return torch.cat((x1 * cos + x2 * sin, x2 * cos - x1 * sin), dim=-1).to(x.dtype)
