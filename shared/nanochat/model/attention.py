"""Attention over a row's own past: one way for training and fresh prompts, one for rows that continue a cache.

Takes queries, keys and values in (B, T, H, D) and gives (B, T, H, D); the projections around it are in gpt.py. A window
of N lets a query see itself and N keys to its left. Query heads may be a multiple of key/value heads. What computes it
is chosen by device, dtype and sizes (choose_backend); tests hold all of them to the same numbers.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat.compiling import constant_in_graphs
from nanochat.model.flash_attention import flash_attention, flash_version
from nanochat.model.precision import is_nvidia
from nanochat.native import training as native

# flash2, flash3, flash4: flash-attn by version. native: this project's own, for float32 on a CPU. sdpa: PyTorch's own,
# with a mask where there is a window. banded: sdpa in pieces of a row, each with the keys it can see. flex: PyTorch's
# FlexAttention, which passes over masked blocks.
Backend = Literal["flash2", "flash3", "flash4", "native", "sdpa", "banded", "flex"]

# Queries of one piece. A mask saves the fused kernel of CPUs no work, so rows are cut: 0.7 of the time of full causal
# attention where masks alone take up to 1.9 (docs/performance.md).
BAND = 128


def causal_attention(
    q: Tensor, k: Tensor, v: Tensor, window: int, scale: float, backend: Backend | None = None
) -> Tensor:
    """Rows that begin at position 0: q (B, T, H, D), k and v (B, T, Hk, D) -> (B, T, H, D)."""
    if backend is None:
        is_windowed = window < q.size(1) - 1
        backend = choose_backend(q.device, q.dtype, q.size(-1), is_windowed, torch.compiler.is_compiling())
    return _FUNCTIONS[backend](q, k, v, window, scale)


@constant_in_graphs
def choose_backend(
    device: torch.device, dtype: torch.dtype, head_dim: int, is_windowed: bool, is_compiled: bool
) -> Backend:
    """flash-attn and the CPU's kernels where they can be had; else PyTorch's own, by what a window costs in it.

    FlexAttention is for compiled models: without torch.compile it holds all scores at once.
    """
    version = flash_version(device, dtype, head_dim)
    if version is not None:
        return _FLASH[version]
    if device.type == "cpu" and dtype == torch.float32 and native.is_available():
        return "native"
    if not is_windowed:
        return "sdpa"
    if device.type == "cpu":  # where FlexAttention has no backward
        return "banded"
    is_new = device.type == "cuda" and (not is_nvidia(device) or torch.cuda.get_device_capability(device) >= (8, 0))
    return "flex" if is_new and is_compiled and head_dim >= 16 else "sdpa"


def visible_keys(positions: Tensor, num_keys: int, window: int, first_key: int = 0) -> Tensor:
    """Which of num_keys keys, from first_key on, each query sees: positions (...,) -> bool (..., num_keys)."""
    keys = torch.arange(first_key, first_key + num_keys, device=positions.device)
    distance = positions[..., None] - keys
    return (distance >= 0) & (distance <= window)


def cached_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Queries (B, T, H, D) over cached keys and values (B, S, Hk, D), as mask (B, T, S) allows -> (B, T, H, D).

    The mask is additive, in q's dtype. Query heads that share a key/value head are laid along T, so no key is copied.
    """
    B, T, H, D = q.shape
    Hk = k.size(2)
    group = H // Hk
    if group == 1:
        q = q.transpose(1, 2)  # (B, T, H, D) -> (B, H, T, D)
        y = F.scaled_dot_product_attention(q, k.transpose(1, 2), v.transpose(1, 2), mask[:, None], scale=scale)
        return y.transpose(1, 2)
    q = q.view(B, T, Hk, group, D).permute(0, 2, 3, 1, 4).reshape(B, Hk, group * T, D)
    mask = mask.repeat(1, group, 1)[:, None]  # (B, T, S) -> (B, 1, group * T, S)
    y = F.scaled_dot_product_attention(q, k.transpose(1, 2), v.transpose(1, 2), mask, scale=scale)
    return y.view(B, Hk, group, T, D).permute(0, 3, 1, 2, 4).reshape(B, T, H, D)


def _sdpa(q: Tensor, k: Tensor, v: Tensor, window: int, scale: float) -> Tensor:
    T = q.size(1)
    gqa = q.size(2) != k.size(2)
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, T, H, D) -> (B, H, T, D)
    if window >= T - 1:
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=gqa)
    else:
        mask = visible_keys(torch.arange(T, device=q.device), T, window)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=gqa)
    return y.transpose(1, 2)


def _banded(q: Tensor, k: Tensor, v: Tensor, window: int, scale: float) -> Tensor:
    """In pieces of BAND queries, each with the keys within its window."""
    T = q.size(1)
    group = q.size(2) // k.size(2)
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, T, H, D) -> (B, H, T, D)
    if group > 1:
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    pieces = []
    for start in range(0, T, BAND):
        stop = min(start + BAND, T)
        first = max(0, start - window)
        mask = visible_keys(torch.arange(start, stop, device=q.device), stop - first, window, first)
        pieces.append(
            F.scaled_dot_product_attention(
                q[:, :, start:stop], k[:, :, first:stop], v[:, :, first:stop], attn_mask=mask, scale=scale
            )
        )
    return torch.cat(pieces, dim=2).transpose(1, 2)


def _flex(q: Tensor, k: Tensor, v: Tensor, window: int, scale: float) -> Tensor:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention  # loads torch's compiler

    T = q.size(1)
    gqa = q.size(2) != k.size(2)

    def sees(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query - key <= window)

    # Layers of one window share it: in a compiled model what is computed twice alike is computed once.
    blocks = create_block_mask(sees, None, None, T, T, device=q.device)
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, T, H, D) -> (B, H, T, D)
    y = flex_attention(q, k, v, block_mask=blocks, scale=scale, enable_gqa=gqa)
    assert isinstance(y, Tensor)
    return y.transpose(1, 2)


def _flash(version: int) -> Callable[[Tensor, Tensor, Tensor, int, float], Tensor]:
    def attend(q: Tensor, k: Tensor, v: Tensor, window: int, scale: float) -> Tensor:
        return flash_attention(version, q, k, v, window, scale)

    return attend


_FLASH: dict[int, Backend] = {2: "flash2", 3: "flash3", 4: "flash4"}
_FUNCTIONS: dict[str, Callable[[Tensor, Tensor, Tensor, int, float], Tensor]] = {
    "native": native.causal_attention,
    "sdpa": _sdpa,
    "banded": _banded,
    "flex": _flex,
    **{name: _flash(version) for version, name in _FLASH.items()},
}
