"""flash-attn: which version the GPU and the installed packages allow, and how to call it.

Three packages of one project (github.com/Dao-AILab/flash-attention), each with a flash_attn_func of its own: flash_attn
(2; sm80 on), flash_attn_interface (3; Hopper), flash_attn.cute (4; Hopper on, as those before have no backward in it).
All take (B, T, H, D) in half precision, and fewer key/value heads than query heads.

That is for rows from position 0. A cache is read by 2, in pages: a table says for each row where its pages lie, one
after the other, so that a ring is a table in which pages come again.
"""

import functools
import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nanochat.model.precision import is_nvidia

FlashFunction = Callable[..., Any]

try:
    from flash_attn import flash_attn_with_kvcache
except ImportError:  # CUDA alone has it
    flash_attn_with_kvcache = None

_MODULES = {2: "flash_attn", 3: "flash_attn_interface", 4: "flash_attn.cute"}
_MAX_HEAD_DIM = {2: 256, 3: 256, 4: 128}  # 4 takes no more on Blackwell
_VERSIONS_BY_SM = {8: (2,), 9: (3, 4, 2)}  # best first, by the capability's first number
_VERSIONS_OF_NEWER = (4, 2)


# The least that 2 takes: tiles of keys lie within a page, and are of up to 256.
_PAGE_TOKENS = 256


def flash_version(device: torch.device, dtype: torch.dtype, head_dim: int) -> int | None:
    """The best version that is installed and takes such tensors; None where there is none."""
    if not is_nvidia(device) or dtype not in (torch.float16, torch.bfloat16) or head_dim % 8:
        return None
    major = torch.cuda.get_device_capability(device)[0]
    versions = _VERSIONS_BY_SM.get(major, _VERSIONS_OF_NEWER if major > 9 else ())
    fitting = (version for version in versions if head_dim <= _MAX_HEAD_DIM[version])
    return next((version for version in fitting if _function(version) is not None), None)


def flash_attention(version: int, q: Tensor, k: Tensor, v: Tensor, window: int, scale: float) -> Tensor:
    """q (B, T, H, D), k and v (B, T, Hk, D) -> (B, T, H, D), of a version that is installed."""
    function = _function(version)
    assert function is not None, f"flash-attn {version} is not installed"
    # A window as long as the rows is none: (-1, -1) is what all versions take for that.
    sizes = (window, 0) if window < q.size(1) - 1 else (-1, -1)
    found = function(q, k, v, softmax_scale=scale, causal=True, window_size=sizes)
    # 4, and early versions of 3, give the sums of exponentials too.
    out: Tensor = found[0] if isinstance(found, tuple) else found
    return out


def page_tokens(device: torch.device, dtype: torch.dtype, head_dim: int) -> int | None:
    """Positions in a page of a cache that paged_flash_attention is to read; None where it cannot read such a cache."""
    if flash_attn_with_kvcache is None or not is_nvidia(device) or dtype not in (torch.float16, torch.bfloat16):
        return None
    if head_dim > _MAX_HEAD_DIM[2] or torch.cuda.get_device_capability(device) < (8, 0):
        return None
    return _PAGE_TOKENS


def paged_flash_attention(
    q: Tensor, key_pages: Tensor, value_pages: Tensor, tables: Tensor, lengths: Tensor, window: int, scale: float
) -> Tensor:
    """The last of each row's lengths (B,) int32 positions over them all: q (B, 1, H, D) -> (B, 1, H, D).

    key_pages, value_pages: (pages, page_tokens, Hk, D). tables: (B, S / page_tokens) int32; position p of row b lies in
    page tables[b, p // page_tokens]. What is seen is masked by position, and tiles without any of it are not read.
    """
    out: Tensor = flash_attn_with_kvcache(
        q,
        key_pages,
        value_pages,
        cache_seqlens=lengths,
        block_table=tables,
        softmax_scale=scale,
        causal=True,
        window_size=(window, 0),
    )
    return out


@functools.cache
def _function(version: int) -> FlashFunction | None:
    """Imported when it is first asked for, as 4 takes seconds. None: not installed, or not for this torch."""
    try:
        function: FlashFunction = importlib.import_module(_MODULES[version]).flash_attn_func
    except (ImportError, OSError, AttributeError):
        return None
    if version == 4:  # it compiles kernels in Python on its way, which torch.compile must not look into
        function = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
    return function
