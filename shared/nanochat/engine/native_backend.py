"""A step by the CPU's own kernels: rows of any length side by side without padding, each as if it were alone."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from nanochat.engine.backend import BlockStore, Chunk
from nanochat.engine.packed_model import NativeCache, NativeModel
from nanochat.model.gpt import GPT
from nanochat.model.names import named_tensors

# Longer chunks are no faster, and a windowed layer keeps as many tokens beside its window.
MAX_CHUNK = 256


class NativeBackend:
    """Packs the model's weights, and anew when they have changed: a model in training can be sampled from."""

    max_chunk = MAX_CHUNK
    step_tokens = 4 * MAX_CHUNK
    # The kernels have threads of their own, and torch's would fight with them for the cores over a little sampling.
    num_torch_threads: int | None = 1

    def __init__(
        self,
        model: GPT,
        *,
        num_slots: int,
        max_len: int,
        weights: Literal["fp32", "int8"],
        is_frozen: bool = False,
        on_progress: Callable[[], None] = lambda: None,
    ) -> None:
        """As many threads as torch is set to. is_frozen: the weights will not change, so the model need not be kept.
        on_progress is called for each matrix that is packed.

        Raises Unavailable where the kernels cannot be had.
        """
        self.num_slots, self.max_len = num_slots, max_len
        self.weights: str = weights
        self._model = None if is_frozen else model
        self._parameters = [] if is_frozen else list(model.parameters())
        self._version = self._current_version()
        self._native = NativeModel(
            model.config,
            named_tensors(model),
            weights=weights,
            num_threads=torch.get_num_threads(),
            on_progress=on_progress,
        )
        self._cache = self._native.new_cache(num_slots, max_len, min(MAX_CHUNK, max_len))

    @staticmethod
    def suits(model: GPT) -> bool:
        return model.device.type == "cpu" and model.compute_dtype == torch.float32

    @property
    def weight_bytes(self) -> int:
        return self._native.weight_bytes

    def forward(self, chunks: Sequence[Chunk]) -> Tensor:
        return self.forward_ends(chunks, [1] * len(chunks))

    def forward_all(self, chunk: Chunk) -> Tensor:
        return self.forward_ends([chunk], [len(chunk.token_ids)])

    def forward_ends(self, chunks: Sequence[Chunk], counts: Sequence[int]) -> Tensor:
        ends = np.cumsum([len(chunk.token_ids) for chunk in chunks]).tolist()
        wanted = [place for end, count in zip(ends, counts, strict=True) for place in range(end - count, end)]
        return self._step(chunks, wanted)

    def copy_slot(self, source: int, target: int, length: int) -> None:
        self._cache.copy_slot(source, target, length)

    def block_bytes(self) -> int:
        return self._cache.block_bytes

    def new_block_store(self, num_blocks: int) -> BlockStore:
        return _Store(self._native, self._cache, num_blocks)

    def _step(self, chunks: Sequence[Chunk], wanted: Sequence[int]) -> Tensor:
        version = self._current_version()
        if version != self._version and self._model is not None:
            self._native.load(named_tensors(self._model))
            self._version = version
        rows = [(chunk.slot, chunk.start, len(chunk.token_ids)) for chunk in chunks]
        token_ids: list[int] = []
        previous: list[int] = []
        for chunk in chunks:
            token_ids += chunk.token_ids
            previous.append(chunk.previous_id)
            previous += chunk.token_ids[:-1]
        return self._native.step(self._cache, rows, token_ids, previous, wanted)

    def _current_version(self) -> int:
        """Grows with every change of a weight in place, as an optimizer makes."""
        return sum(parameter._version for parameter in self._parameters)


class _Store:
    def __init__(self, native: NativeModel, cache: NativeCache, num_blocks: int) -> None:
        self._native, self._cache = native, cache
        # Left empty: the system gives memory as it is written.
        self._blocks = np.empty((num_blocks, cache.block_bytes), dtype=np.uint8)
        self._address = self._blocks.ctypes.data

    def save(self, slot: int, blocks: Mapping[int, int]) -> None:
        self._native.save_blocks(self._cache, slot, blocks, self._address)

    def restore(self, slot: int, blocks: Mapping[int, int]) -> None:
        self._native.restore_blocks(self._cache, slot, blocks, self._address)
