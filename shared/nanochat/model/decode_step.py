"""One token for each of B rows, without a look at the CPU: every shape is fixed, every position is read on the device.

So a step can be recorded once and replayed, as CUDA graphs are. ragged.py is the general way, of which this computes
the same; which rows take part, and the recording, are the engine's (decode_graphs.py).
"""

import torch
from torch import Tensor

from nanochat.model.attention import cached_attention
from nanochat.model.flash_attention import paged_flash_attention
from nanochat.model.kv_cache import KVCache


class DecodeStep:
    """slots and positions: (B,) int64 on the cache's device; a slot may come twice only if nobody reads it."""

    is_fresh = False

    def __init__(self, cache: KVCache, slots: Tensor, positions: Tensor) -> None:
        self.positions = positions[:, None]  # (B,) -> (B, 1)
        self._cache, self._slots = cache, slots
        self._lengths = positions.to(torch.int32) + 1
        # What layers of one size share, and those of one window.
        self._targets: dict[int, tuple[Tensor, Tensor]] = {}
        self._tables: dict[int, Tensor] = {}
        self._reads: dict[int, tuple[Tensor, Tensor]] = {}

    def shift_embeddings(self, e: Tensor) -> Tensor:
        """Each row's embedding before this one (B, 1, C), zero at position 0; remembers this one."""
        previous = self._cache.last_embedding[self._slots] * (self.positions > 0)
        self._cache.last_embedding[self._slots] = e[:, 0]
        return previous[:, None]

    def store(self, layer: int, k: Tensor, v: Tensor) -> None:
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        size = keys.size(1)
        if size not in self._targets:
            self._targets[size] = self._slots, self.positions[:, 0] % size
        keys.index_put_(self._targets[size], k[:, 0])
        values.index_put_(self._targets[size], v[:, 0])

    def attend(self, layer: int, q: Tensor, window: int, scale: float) -> Tensor:
        """Attention of q (B, 1, H, D) over each row's slot, the key just stored included -> (B, 1, H, D)."""
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        size = keys.size(1)
        if self._cache.page_tokens is not None:
            tables = self._table(size, self._cache.page_tokens)
            return paged_flash_attention(q, *self._cache.pages(layer), tables, self._lengths, window, scale)
        slots = self._slots[:, None]
        places, mask = self._read(window, size)
        return cached_attention(q, keys[slots, places], values[slots, places], mask, scale)

    def _table(self, size: int, page_tokens: int) -> Tensor:
        """The pages (B, S / page_tokens) int32 of each row's positions, whatever their number: a ring's come again."""
        if size not in self._tables:
            num_pages = size // page_tokens
            pages = torch.arange(-(-self._cache.max_len // page_tokens), device=self._slots.device) % num_pages
            self._tables[size] = (self._slots[:, None] * num_pages + pages).to(torch.int32)
        return self._tables[size]

    def _read(self, window: int, size: int) -> tuple[Tensor, Tensor]:
        """The places (B, S) that hold each row's window, as many for all, and an additive mask (B, 1, S) of them."""
        if window not in self._reads:
            num_keys = min(window + 1, self._cache.max_len)
            first = (self.positions + 1 - num_keys).clamp(min=0)  # (B, 1)
            positions = first + torch.arange(num_keys, device=self._slots.device)
            mask = torch.zeros(positions.shape, dtype=self._cache.keys[0].dtype, device=self._slots.device)
            mask.masked_fill_(positions > self.positions, float("-inf"))
            self._reads[window] = positions % size, mask[:, None]
        return self._reads[window]

    def last(self, x: Tensor) -> Tensor:
        return x[:, 0]
