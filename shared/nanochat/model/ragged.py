"""One step of cached decoding over rows of different lengths: where each row's new tokens go, and what they may see.

Made anew for every call of GPT.forward_cached, and shared by all its layers. Everything about lengths is worked out on
the CPU, then sent to the device at once; no loop runs over rows. Position p lies at place p % size of a slot, so what a
row has at a place is the last of its positions that go there.
"""

import torch
from torch import Tensor

from nanochat.errors import ContextTooLong
from nanochat.model.attention import cached_attention
from nanochat.model.kv_cache import KVCache

# A row that is attended for nothing costs less than half of one whose keys are gathered into a copy.
MAX_SPAN_RATIO = 2


class RaggedStep:
    """positions: (B, T) on the device, padding at its row's last one. is_fresh: every row begins at position 0.

    Raises ContextTooLong where a slot would outgrow the cache.
    """

    def __init__(self, cache: KVCache, slots: Tensor, num_new: Tensor, T: int, device: torch.device) -> None:
        slots, num_new = slots.cpu(), num_new.cpu()
        before = cache.lengths[slots]
        after = before + num_new
        self._num_keys = int(after.max())
        if self._num_keys > cache.max_len:
            raise ContextTooLong(
                f"slot {int(slots[after.argmax()])} would hold {self._num_keys} tokens; the cache takes "
                f"{cache.max_len}. Stop the sequence or make a larger cache."
            )
        assert int(num_new.max()) <= cache.max_chunk, "a ring has room for max_chunk tokens of a step"
        self._cache, self._device = cache, device
        self._slots_cpu, self._num_new_cpu, self._after = slots, num_new, after
        self._first_position, self._num_columns = int(before.min()), T
        self.is_fresh = int(before.max()) == 0
        positions = torch.minimum(before[:, None] + torch.arange(T), (after[:, None] - 1).clamp(min=0))
        # To Apple's GPUs such a copy may read memory that has been freed (github.com/pytorch/pytorch/issues/189690).
        is_async = device.type == "cuda"
        self.positions = positions.to(device, non_blocking=is_async)
        self._slots = slots.to(device, non_blocking=is_async)
        self._num_new = num_new.to(device, non_blocking=is_async)
        self._plan_stores(before, num_new, T)
        self._plan_reads()

    def _plan_stores(self, before: Tensor, num_new: Tensor, T: int) -> None:
        """Which of the new (B, T) entries are tokens, and the slot and position that each goes to."""
        self._tokens: tuple[Tensor, Tensor] | None = None  # None: all of them
        self._target = (self._slots[:, None], self.positions)
        self._targets: dict[int, tuple[Tensor, Tensor]] = {}
        if int(num_new.min()) < T:
            rows, columns = (torch.arange(T) < num_new[:, None]).nonzero(as_tuple=True)
            target = self._slots_cpu[rows], before[rows] + columns
            self._tokens = rows.to(self._device), columns.to(self._device)
            self._target = target[0].to(self._device), target[1].to(self._device)

    def _plan_reads(self) -> None:
        """Read a span of neighbouring slots in place where the rows fill enough of it, else gather the rows' own."""
        slots = self._slots_cpu
        low, high = int(slots.min()), int(slots.max()) + 1
        self._span = slice(low, high) if high - low <= MAX_SPAN_RATIO * slots.numel() else None
        self._places: Tensor | None = None  # each row's place in the span; None: in order
        if self._span is not None and not torch.equal(slots, torch.arange(low, high)):
            self._places = self._slots - low
        self._masks: dict[int, Tensor] = {}
        self._windows: dict[int, tuple[Tensor, Tensor]] = {}

    def shift_embeddings(self, e: Tensor) -> Tensor:
        """Each token's predecessor (B, T, C), the first one's from the cache; remembers each row's new last one."""
        chain = torch.cat((self._cache.last_embedding[self._slots][:, None], e), dim=1)  # (B, 1 + T, C)
        self._cache.last_embedding[self._slots] = chain[self._row_indices(), self._num_new]
        return chain[:, :-1]

    def store(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Write the new keys and values (B, T, Hk, D) of one layer; padding is left out."""
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        size = keys.size(1)
        if size not in self._targets:
            slots, positions = self._target
            self._targets[size] = slots, positions % size
        if self._tokens is not None:
            k, v = k[self._tokens], v[self._tokens]
        keys.index_put_(self._targets[size], k)
        values.index_put_(self._targets[size], v)

    def attend(self, layer: int, q: Tensor, window: int, scale: float) -> Tensor:
        """Attention of q (B, T, H, D) over the slots' keys, those just stored included -> (B, T, H, D)."""
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        size = keys.size(1)
        visible = self._visible(window, size)
        if visible.stop - visible.start > MAX_SPAN_RATIO * (window + self._num_columns):
            slots = self._slots[:, None]
            places, mask = self._window(window, size)
            return cached_attention(q, keys[slots, places], values[slots, places], mask, scale)
        mask = self._mask(window, size, visible)
        if self._span is None:
            return cached_attention(q, keys[:, visible][self._slots], values[:, visible][self._slots], mask, scale)
        k, v = keys[self._span, visible], values[self._span, visible]
        if self._places is None:
            return cached_attention(q, k, v, mask, scale)
        return cached_attention(self._spread(q, k.size(0)), k, v, mask, scale)[self._places]

    def last(self, x: Tensor) -> Tensor:
        """Each row's last new token: (B, T, C) -> (B, C)."""
        return x[self._row_indices(), (self._num_new - 1).clamp(min=0)]

    def ends(self, x: Tensor, counts: Tensor) -> Tensor:
        """Each row's last `counts` (B,) new tokens, row after row: (B, T, C) -> (sum, C)."""
        num_new = self._num_new_cpu
        columns = torch.arange(x.size(1))
        is_wanted = (columns < num_new[:, None]) & (columns >= (num_new - counts)[:, None])
        rows, places = is_wanted.nonzero(as_tuple=True)
        return x[rows.to(self._device), places.to(self._device)]

    def finish(self) -> None:
        """Count the new tokens, once every layer has stored its own."""
        self._cache.lengths[self._slots_cpu] = self._after

    def _visible(self, window: int, size: int) -> slice:
        """The places of all that any row sees; where that goes on at a ring's beginning, the whole ring."""
        first = max(0, self._first_position - window)
        start = first % size
        stop = start + self._num_keys - first
        return slice(start, stop) if stop <= size else slice(0, size)

    def _mask(self, window: int, size: int, visible: slice) -> Tensor:
        """Additive mask (B, T, S), or (span, T, S) where rows are spread: 0 where a query sees a key, else -inf."""
        if window not in self._masks:
            places = torch.arange(visible.start, visible.stop, device=self._device)
            last = self.positions[:, -1:]  # (B, 1)
            keys = last - (last - places) % size  # (B, S), below 0 where a row has nothing yet
            mask = self._additive(self._seen(keys, window) & (keys >= 0)[:, None])
            if self._span is not None and self._places is not None:
                mask = self._spread(mask, self._span.stop - self._span.start)
            self._masks[window] = mask
        return self._masks[window]

    def _window(self, window: int, size: int) -> tuple[Tensor, Tensor]:
        """For rows whose windows lie far apart: the places (B, S) of each row's own, and their mask (B, T, S)."""
        if window not in self._windows:
            num_keys = window + self._num_columns
            first = (self.positions[:, :1] - window).clamp(0, self._num_keys - num_keys)  # (B, 1)
            keys = first + torch.arange(num_keys, device=self._device)
            self._windows[window] = keys % size, self._additive(self._seen(keys, window))
        return self._windows[window]

    def _seen(self, keys: Tensor, window: int) -> Tensor:
        """Which of the keys at these positions (B, S) each query sees -> (B, T, S)."""
        distance = self.positions[..., None] - keys[:, None]
        return (distance >= 0) & (distance <= window)

    def _additive(self, seen: Tensor) -> Tensor:
        mask = torch.zeros(seen.shape, dtype=self._cache.keys[0].dtype, device=self._device)
        return mask.masked_fill_(~seen, float("-inf"))

    def _spread(self, x: Tensor, size: int) -> Tensor:
        """Rows at their places in the span, zeros between: (B, ...) -> (size, ...)."""
        return x.new_zeros((size, *x.shape[1:])).index_copy_(0, self._places, x) if self._places is not None else x

    def _row_indices(self) -> Tensor:
        return torch.arange(self._slots.numel(), device=self._device)
