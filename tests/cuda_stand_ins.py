"""What decoding has on CUDA alone, on a CPU: recordings that are replayed, and flash-attn over a cache in pages."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from nanochat.model import flash_attention, kv_cache

# flash-attn's pages have 256 positions, which would leave no small model a ring.
PAGE_TOKENS = 16


def record(compute: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
    """What a CUDA graph does: the same computation again, its result in the same place. Computes more than once before,
    as record_on_cuda does."""
    compute()
    result = compute().clone()

    def replay() -> None:
        result.copy_(compute())

    return result, replay


def use_paged_flash_attn(monkeypatch: pytest.MonkeyPatch) -> None:
    """For caches and steps that are made from now on."""
    monkeypatch.setattr(flash_attention, "flash_attn_with_kvcache", attend_as_flash_attn_does)
    monkeypatch.setattr(kv_cache, "page_tokens", lambda *_: PAGE_TOKENS)


def attend_as_flash_attn_does(q: Tensor, k_cache: Tensor, v_cache: Tensor, **options: Any) -> Tensor:
    """flash_attn_with_kvcache of version 2 as its documentation has it where there is a block_table, row by row and
    in float64: caches are (num_blocks, page_block_size, Hk, D), the table (B, max_num_blocks_per_seq)."""
    assert options.keys() == {"cache_seqlens", "block_table", "softmax_scale", "causal", "window_size"}
    lengths, table = options["cache_seqlens"], options["block_table"]
    assert lengths.dtype == table.dtype == torch.int32
    assert lengths.shape == (q.size(0),) and table.size(0) == q.size(0) and table.is_contiguous()
    assert k_cache.shape == v_cache.shape and k_cache.size(1) == PAGE_TOKENS and k_cache.stride(-1) == 1
    assert int(lengths.max()) <= table.size(1) * PAGE_TOKENS
    assert int(table.min()) >= 0 and int(table.max()) < k_cache.size(0)
    assert options["causal"] and options["window_size"][1] == 0
    out = torch.empty_like(q)
    group = q.size(2) // k_cache.size(2)
    for row, length in enumerate(lengths.tolist()):
        first = max(0, length - 1 - options["window_size"][0])
        positions = torch.arange(first, length)
        place = table[row, positions // PAGE_TOKENS].long(), positions % PAGE_TOKENS
        keys = k_cache[place].double().repeat_interleave(group, dim=1)  # (S, H, D)
        values = v_cache[place].double().repeat_interleave(group, dim=1)
        weights = torch.einsum("hd,shd->hs", q[row, 0].double(), keys).mul(options["softmax_scale"]).softmax(-1)
        out[row, 0] = torch.einsum("hs,shd->hd", weights, values).to(q.dtype)
    return out
