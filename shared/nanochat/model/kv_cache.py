"""What decoding keeps between steps: keys and values of every slot, how many there are, and the smear's last embedding.

Layers of one size share a tensor: those with a window are rings of it, the others have room for the whole context. A
slot holds one sequence. Which sequence sits in which slot is the engine's business; attention over slots is gpt.py's.
"""

import math

import torch
from torch import Tensor

from nanochat.config import GPTConfig
from nanochat.errors import ContextTooLong
from nanochat.model.flash_attention import page_tokens


class KVCache:
    """Room for num_slots sequences of up to max_len tokens.

    keys, values: a tensor a layer, (slots, size, Hk, D), where position p lies at p % size. rooms: the same memory by
    size, (2, layers, slots, size, Hk, D), keys before values. last_embedding: (slots, C), the normed embedding, before
    smear, of a slot's newest token, zero while it is empty. lengths: (slots,) int64, always on the CPU, so that no step
    waits for a device to learn how far its rows have come.

    max_chunk: the most tokens that a slot gets in one step, and that it may go back by from the farthest it has been;
    None: any number, which leaves no layer to be a ring. The size of a ring is a multiple of block_tokens. page_tokens:
    of how many positions the pages are that flash-attn reads, None where it does not. Raises ContextTooLong where
    max_len exceeds the model's sequence_len.
    """

    def __init__(
        self,
        config: GPTConfig,
        num_slots: int,
        max_len: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        *,
        max_chunk: int | None = None,
        block_tokens: int = 1,
    ) -> None:
        if max_len > config.sequence_len:
            raise ContextTooLong(
                f"a cache of {max_len} tokens a slot was asked for; the model takes {config.sequence_len}."
            )
        assert num_slots >= 1 and max_len >= 1, "a cache needs a slot and a token"
        self.num_slots, self.max_len = num_slots, max_len
        self.max_chunk = max_len if max_chunk is None else max_chunk
        self.page_tokens = page_tokens(torch.device(device), dtype, config.head_dim)
        sizes = [self._size(window, block_tokens) for window in config.windows]
        self.rooms = tuple(
            torch.zeros(
                (2, sizes.count(size), num_slots, size, config.n_kv_head, config.head_dim), device=device, dtype=dtype
            )
            for size in sorted(set(sizes))
        )
        layers = {room.size(3): iter(room.unbind(1)) for room in self.rooms}
        pairs = [next(layers[size]) for size in sizes]
        self.keys, self.values = tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs)
        self.last_embedding = torch.zeros((num_slots, config.n_embd), device=device, dtype=dtype)
        self.lengths = torch.zeros(num_slots, dtype=torch.int64)

    def _size(self, window: int, block_tokens: int) -> int:
        """Positions of a slot in a layer.

        A token at position p sees those from p - window on. The farthest that its slot has ever been written ends at
        p + max_chunk at most: by the step that p begins, or by one that it has gone back from. So window + max_chunk
        positions hold all that is seen, and no page more: it is by positions, not by pages, that flash-attn masks what
        lies beside them.
        """
        page = self.page_tokens or 1
        whole = _round_up(self.max_len, page)
        return min(whole, _round_up(window + self.max_chunk, math.lcm(page, block_tokens)))

    def pages(self, layer: int) -> tuple[Tensor, Tensor]:
        """A layer's keys and values as flash-attn takes them: (slots * size / page_tokens, page_tokens, Hk, D)."""
        assert self.page_tokens is not None, "flash-attn does not read this cache"
        keys, values = self.keys[layer], self.values[layer]
        shape = (-1, self.page_tokens, *keys.shape[2:])
        return keys.view(shape), values.view(shape)

    def reset(self, slot: int) -> None:
        """Empty a slot. Old keys stay in memory, out of sight."""
        self.lengths[slot] = 0
        self.last_embedding[slot] = 0

    def copy_slot(self, source: int, target: int) -> None:
        """Make target continue where source stands: one prefill, then several samples."""
        length = int(self.lengths[source])
        for room in self.rooms:
            held = slice(min(length, room.size(3)))
            room[:, :, target, held] = room[:, :, source, held]
        self.last_embedding[target] = self.last_embedding[source]
        self.lengths[target] = length


def _round_up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple
