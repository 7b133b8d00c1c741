"""One token for each of B rows, without a look at the CPU: every shape is fixed, every position is read on the device.

So a step can be recorded once and replayed, as CUDA graphs are. ragged.py is the general way, of which this computes
the same; which rows take part, and the recording, are the engine's (decode_graphs.py).
"""

import torch
from torch import Tensor

from nanochat.model.attention import cached_attention
from nanochat.model.kv_cache import KVCache
from nanochat.model.precision import is_nvidia

try:
    from flash_attn import flash_attn_with_kvcache
except ImportError:  # CUDA alone has it
    flash_attn_with_kvcache = None


class DecodeStep:
    """slots and positions: (B,) int64 on the cache's device; a slot may come twice only if nobody reads it."""

    is_fresh = False

    def __init__(self, cache: KVCache, slots: Tensor, positions: Tensor) -> None:
        self.positions = positions[:, None]  # (B,) -> (B, 1)
        self._cache, self._slots = cache, slots
        self._uses_flash = flash_attn_with_kvcache is not None and _suits_flash(cache.keys)
        self._reads: dict[int, tuple[Tensor, Tensor]] = {}

    def shift_embeddings(self, e: Tensor) -> Tensor:
        """Each row's embedding before this one (B, 1, C), zero at position 0; remembers this one."""
        previous = self._cache.last_embedding[self._slots] * (self.positions > 0)
        self._cache.last_embedding[self._slots] = e[:, 0]
        return previous[:, None]

    def store(self, layer: int, k: Tensor, v: Tensor) -> None:
        place = self._slots, self.positions[:, 0]
        self._cache.keys[layer].index_put_(place, k[:, 0])
        self._cache.values[layer].index_put_(place, v[:, 0])

    def attend(self, layer: int, q: Tensor, window: int, scale: float) -> Tensor:
        """Attention of q (B, 1, H, D) over each row's slot, the key just stored included -> (B, 1, H, D)."""
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        if self._uses_flash:
            out: Tensor = flash_attn_with_kvcache(
                q,
                keys,
                values,
                cache_seqlens=self.positions[:, 0].to(torch.int32) + 1,
                cache_batch_idx=self._slots.to(torch.int32),
                softmax_scale=scale,
                causal=True,
                window_size=(window, 0),
            )
            return out
        slots = self._slots[:, None]
        places, mask = self._read(window)
        return cached_attention(q, keys[slots, places], values[slots, places], mask, scale)

    def _read(self, window: int) -> tuple[Tensor, Tensor]:
        """The positions (B, S) that hold each row's window, as many for all, and an additive mask (B, 1, S) of them."""
        if window not in self._reads:
            keys = self._cache.keys
            size = min(window + 1, self._cache.max_len)
            first = (self.positions + 1 - size).clamp(min=0)  # (B, 1)
            places = first + torch.arange(size, device=keys.device)
            mask = torch.zeros(places.shape, dtype=keys.dtype, device=keys.device)
            mask.masked_fill_(places > self.positions, float("-inf"))
            self._reads[window] = places, mask[:, None]
        return self._reads[window]

    def last(self, x: Tensor) -> Tensor:
        return x[:, 0]


def _suits_flash(keys: Tensor) -> bool:
    """flash-attn 2 is for half precision, heads of up to 256 channels, on sm80 and newer of NVIDIA's."""
    if not is_nvidia(keys.device) or keys.dtype not in (torch.float16, torch.bfloat16) or keys.size(-1) > 256:
        return False
    return torch.cuda.get_device_capability(keys.device) >= (8, 0)
