"""A step by torch: GPT and its cache on any device. Prompts are padded to like length; decoding rows are a batch.

On CUDA that batch is a recording (decode_graphs.py).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nanochat.engine.backend import BLOCK_TOKENS, BlockStore, Chunk
from nanochat.engine.decode_graphs import DecodeGraphs, Record, record_on_cuda
from nanochat.model.float8_weights import uses_float8_weights
from nanochat.model.gpt import GPT
from nanochat.model.kv_cache import KVCache

# Padded tokens in one forward of prompts: bounds the memory that activations take.
MAX_PREFILL_TOKENS = 4096
# Tokens of a slot in one step. A layer with a window keeps as many beside it: half of a context of 2048, as the usual
# window is a quarter of it.
MAX_CHUNK = 512


class TorchBackend:
    max_chunk = MAX_CHUNK
    step_tokens = MAX_PREFILL_TOKENS
    num_torch_threads: int | None = None

    def __init__(self, model: GPT, *, num_slots: int, max_len: int, record: Record | None = None) -> None:
        """`record` stands in for CUDA's graphs on other devices."""
        # Rings are whole blocks and longer than a chunk: they hold all of a block that ends in the newest chunk, too.
        assert self.max_chunk % BLOCK_TOKENS == 0, "chunks of whole blocks"
        self.num_slots, self.max_len = num_slots, max_len
        dtype = torch.float8_e4m3fn if uses_float8_weights(model) else model.compute_dtype
        self.weights = str(dtype).removeprefix("torch.")
        self._model = model
        uses_graphs = model.device.type == "cuda" or record is not None
        # One slot more for the graphs' filling rows.
        num_rows = num_slots + 1 if uses_graphs else num_slots
        self._cache = KVCache(
            model.config,
            num_rows,
            max_len,
            model.device,
            model.compute_dtype,
            max_chunk=self.max_chunk,
            block_tokens=BLOCK_TOKENS,
        )
        self._graphs = DecodeGraphs(model, self._cache, record or record_on_cuda) if uses_graphs else None
        # Slots whose newest embedding is not that of their last token: they went back, or were restored without it.
        self._stale: set[int] = set()

    @torch.inference_mode()
    def forward(self, chunks: Sequence[Chunk]) -> Tensor:
        self._place(chunks)
        logits: list[Tensor | None] = [None] * len(chunks)
        for group in _groups(chunks):
            found = self._last_logits([chunks[i] for i in group])
            for i, row in zip(group, found, strict=True):
                logits[i] = row
        return torch.stack([row for row in logits if row is not None])  # (B, V)

    @torch.inference_mode()
    def forward_all(self, chunk: Chunk) -> Tensor:
        return self.forward_ends([chunk], [len(chunk.token_ids)])

    @torch.inference_mode()
    def forward_ends(self, chunks: Sequence[Chunk], counts: Sequence[int]) -> Tensor:
        self._place(chunks)
        parts: list[tuple[int, Tensor]] = []
        for group in _groups(chunks):
            wanted = [counts[i] for i in group]
            found = self._forward([chunks[i] for i in group], torch.tensor(wanted))
            parts += zip(group, torch.split(found, wanted), strict=True)
        return torch.cat([part for _, part in sorted(parts, key=lambda pair: pair[0])])

    @torch.inference_mode()
    def copy_slot(self, source: int, target: int, length: int) -> None:
        assert int(self._cache.lengths[source]) == length, "a slot is copied as it stands"
        self._cache.copy_slot(source, target)

    def block_bytes(self) -> int:
        return sum(room[:, :, 0, 0].nbytes for room in self._cache.rooms) * BLOCK_TOKENS

    def new_block_store(self, num_blocks: int) -> BlockStore:
        return _Store(self._cache, num_blocks, self._stale)

    def _place(self, chunks: Sequence[Chunk]) -> None:
        """Make each slot hold what is before its chunk, whatever was computed in it last."""
        lengths = self._cache.lengths[[chunk.slot for chunk in chunks]].tolist()
        for chunk, length in zip(chunks, lengths, strict=True):
            if chunk.start == 0:
                self._cache.reset(chunk.slot)
            elif chunk.start != length:
                self._stale.add(chunk.slot)
                self._cache.lengths[chunk.slot] = chunk.start
        stale = [chunk for chunk in chunks if chunk.slot in self._stale]
        if stale:
            previous = torch.tensor([[max(chunk.previous_id, 0)] for chunk in stale], device=self._model.device)
            slots = torch.tensor([chunk.slot for chunk in stale], device=self._model.device)
            has_one = torch.tensor([[chunk.previous_id >= 0] for chunk in stale], device=self._model.device)
            self._cache.last_embedding[slots] = self._model.embed_tokens(previous)[:, 0] * has_one
            self._stale.difference_update(chunk.slot for chunk in stale)

    def _last_logits(self, chunks: Sequence[Chunk]) -> Tensor:
        if self._graphs is not None and all(len(chunk.token_ids) == 1 for chunk in chunks):
            return self._graphs.run(chunks)
        return self._forward(chunks)

    def _forward(self, chunks: Sequence[Chunk], num_wanted: Tensor | None = None) -> Tensor:
        num_new = [len(chunk.token_ids) for chunk in chunks]
        T = max(num_new)
        token_ids = torch.tensor(
            [chunk.token_ids + [0] * (T - n) for chunk, n in zip(chunks, num_new, strict=True)],
            device=self._model.device,
        )
        slots = torch.tensor([chunk.slot for chunk in chunks])
        return self._model.forward_cached(token_ids, self._cache, slots, torch.tensor(num_new), num_wanted)


class _Store:
    """A block is what all layers hold of its positions; in a ring it takes the place of one long before it."""

    def __init__(self, cache: KVCache, num_blocks: int, stale: set[int]) -> None:
        self._cache, self._stale = cache, stale
        self._saved = [
            room.new_empty((num_blocks, 2, room.size(1), BLOCK_TOKENS, *room.shape[4:])) for room in cache.rooms
        ]

    @torch.inference_mode()
    def save(self, slot: int, blocks: Mapping[int, int]) -> None:
        for room, saved in zip(self._cache.rooms, self._saved, strict=True):
            saved[[*blocks.values()]] = room[:, :, slot, _places(room, [*blocks])].movedim(2, 0)

    @torch.inference_mode()
    def restore(self, slot: int, blocks: Mapping[int, int]) -> None:
        for room, saved in zip(self._cache.rooms, self._saved, strict=True):
            newest = -(room.size(3) // BLOCK_TOKENS)  # as many as a ring holds
            kept = saved[[*blocks.values()][newest:]]
            room[:, :, slot, _places(room, [*blocks][newest:])] = kept.movedim(0, 2)
        self._stale.add(slot)


def _places(room: Tensor, blocks: Sequence[int]) -> Tensor:
    """Where a room has the positions of blocks: (blocks, BLOCK_TOKENS)."""
    firsts = torch.tensor(blocks, device=room.device)[:, None] * BLOCK_TOKENS
    return (firsts + torch.arange(BLOCK_TOKENS, device=room.device)) % room.size(3)


def _groups(chunks: Sequence[Chunk]) -> list[list[int]]:
    """Which chunks share a forward. Prompts, shortest first: no group's padded size exceeds MAX_PREFILL_TOKENS, unless
    one chunk does. Single tokens together, in the order of their slots: the cache is then read without copying it."""
    lengths = [len(chunk.token_ids) for chunk in chunks]
    groups: list[list[int]] = []
    for i in sorted((i for i, n in enumerate(lengths) if n > 1), key=lambda i: lengths[i]):
        if groups and (len(groups[-1]) + 1) * lengths[i] <= MAX_PREFILL_TOKENS:
            groups[-1].append(i)
        else:
            groups.append([i])
    single = sorted((i for i, n in enumerate(lengths) if n == 1), key=lambda i: chunks[i].slot)
    return [*groups, *([single] if single else [])]
