"""One step of cached decoding over rows of different lengths: where each row's new tokens go, and what they may see.

Made anew for every call of GPT.forward_cached, and shared by all its layers. Everything about lengths is worked out on
the CPU, then sent to the device at once; no loop runs over rows.
"""

import torch
from torch import Tensor

from nanochat.errors import ContextTooLong
from nanochat.model.attention import visible_keys
from nanochat.model.kv_cache import KVCache


class RaggedStep:
    """positions: (B, T) on the device, kept inside the cache for padding. is_fresh: every row begins at position 0."""

    def __init__(self, cache: KVCache, slots: Tensor, num_new: Tensor, T: int, device: torch.device) -> None:
        slots, num_new = slots.cpu(), num_new.cpu()
        self._cache = cache
        self._slots_cpu, self._device = slots, device
        before = cache.lengths[slots]
        self._after = before + num_new
        self._num_keys = int(self._after.max())
        if self._num_keys > cache.max_len:
            slot = int(slots[self._after.argmax()])
            raise ContextTooLong(
                f"slot {slot} would hold {self._num_keys} tokens; the cache takes {cache.max_len}. "
                "Stop the sequence or make a larger cache."
            )
        first = int(before.min())
        self.is_fresh = int(before.max()) == 0
        self._first_position = first
        B = slots.numel()
        positions = before[:, None] + torch.arange(T)
        self._is_padded = int(num_new.min()) < T
        self._is_prefix = bool((slots == torch.arange(B)).all())  # rows are the cache's first slots, in order
        self.positions = positions.clamp_(max=self._num_keys - 1).to(device, non_blocking=True)
        self._slots = slots.to(device, non_blocking=True)
        self._num_new = num_new.to(device, non_blocking=True)
        self._target: tuple[Tensor, Tensor]
        if self._is_padded:
            self._rows, columns = (torch.arange(T) < num_new[:, None]).nonzero(as_tuple=True)
            self._columns = columns.to(device)
            self._target = (slots[self._rows].to(device), (before[self._rows] + columns).to(device))
            self._rows = self._rows.to(device)
        else:
            self._target = (self._slots[:, None], self.positions)
        self._masks: dict[int, tuple[int, Tensor]] = {}

    def shift_embeddings(self, e: Tensor) -> Tensor:
        """Each token's predecessor (B, T, C), the first one's from the cache; remembers each row's new last one."""
        chain = torch.cat((self._cache.last_embedding[self._slots][:, None], e), dim=1)  # (B, 1 + T, C)
        self._cache.last_embedding[self._slots] = chain[torch.arange(e.size(0), device=self._device), self._num_new]
        return chain[:, :-1]

    def store(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Write the new keys and values (B, T, Hk, D) of one layer; padding is left out."""
        if self._is_padded:
            k, v = k[self._rows, self._columns], v[self._rows, self._columns]
        self._cache.keys[layer].index_put_(self._target, k)
        self._cache.values[layer].index_put_(self._target, v)

    def visible(self, layer: int, window: int) -> tuple[Tensor, Tensor, Tensor]:
        """Keys and values (B, S, Hk, D) that some row sees, and the additive mask (B, T, S) of which row sees which."""
        if window not in self._masks:
            start = max(0, self._first_position - window)
            mask = visible_keys(self.positions, self._num_keys - start, window, start)
            additive = torch.zeros(mask.shape, dtype=self._cache.keys.dtype, device=self._device)
            self._masks[window] = start, additive.masked_fill_(~mask, float("-inf"))
        start, additive = self._masks[window]
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        if self._is_prefix:
            B = self._slots.numel()
            return keys[:B, start : self._num_keys], values[:B, start : self._num_keys], additive
        span = slice(start, self._num_keys)
        return keys[:, span][self._slots], values[:, span][self._slots], additive

    def last(self, x: Tensor) -> Tensor:
        """Each row's last new token: (B, T, C) -> (B, C)."""
        return x[torch.arange(x.size(0), device=self._device), (self._num_new - 1).clamp(min=0)]

    def finish(self) -> None:
        """Count the new tokens, once every layer has stored its own."""
        self._cache.lengths[self._slots_cpu] = self._after
