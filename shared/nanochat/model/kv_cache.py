"""What decoding keeps between steps: keys and values of every slot, how many there are, and the smear's last embedding.

A slot holds one sequence. Which sequence sits in which slot is the engine's business; attention over slots is gpt.py's.
"""

import torch

from nanochat.config import GPTConfig
from nanochat.errors import ContextTooLong


class KVCache:
    """Room for num_slots sequences of up to max_len tokens.

    keys, values: (L, slots, max_len, Hk, D). last_embedding: (slots, C), the normed embedding, before smear, of a
    slot's newest token, zero while it is empty. lengths: (slots,) int64, always on the CPU, so that no step waits for
    a device to learn how far its rows have come. Raises ContextTooLong where max_len exceeds the model's sequence_len.
    """

    def __init__(
        self,
        config: GPTConfig,
        num_slots: int,
        max_len: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if max_len > config.sequence_len:
            raise ContextTooLong(
                f"a cache of {max_len} tokens a slot was asked for; the model takes {config.sequence_len}."
            )
        assert num_slots >= 1 and max_len >= 1, "a cache needs a slot and a token"
        shape = (config.n_layer, num_slots, max_len, config.n_kv_head, config.head_dim)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.last_embedding = torch.zeros((num_slots, config.n_embd), device=device, dtype=dtype)
        self.lengths = torch.zeros(num_slots, dtype=torch.int64)
        self.num_slots = num_slots
        self.max_len = max_len

    def reset(self, slot: int) -> None:
        """Empty a slot. Old keys stay in memory, out of sight."""
        self.lengths[slot] = 0
        self.last_embedding[slot] = 0

    def copy_slot(self, source: int, target: int) -> None:
        """Make target continue where source stands: one prefill, then several samples."""
        length = int(self.lengths[source])
        self.keys[:, target, :length] = self.keys[:, source, :length]
        self.values[:, target, :length] = self.values[:, source, :length]
        self.last_embedding[target] = self.last_embedding[source]
        self.lengths[target] = length
