"""Decoding on CUDA without the hundreds of launches that a step takes: one for B rows is recorded once, and replayed.

Rows are filled up to a power of two with rows of a slot that nobody has, so that a handful of recordings serve any
number. What is recorded is DecodeStep's; here are its buffers.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nanochat.engine.backend import Chunk
from nanochat.model.decode_step import DecodeStep
from nanochat.model.gpt import GPT
from nanochat.model.kv_cache import KVCache

# Gives the function's result, and what computes it anew in the same place.
Record = Callable[[Callable[[], Tensor]], tuple[Tensor, Callable[[], None]]]


def record_on_cuda(compute: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
    """As a CUDA graph. Runs it twice before: what is set up at a first call cannot be recorded."""
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        compute()
        compute()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = compute()
    return result, graph.replay


class DecodeGraphs:
    """For a cache whose last slot is left to it."""

    def __init__(self, model: GPT, cache: KVCache, record: Record = record_on_cuda) -> None:
        self._model, self._cache, self._record = model, cache, record
        self._spare = cache.num_slots - 1
        self._steps: dict[int, _Recorded] = {}

    def run(self, chunks: Sequence[Chunk]) -> Tensor:
        """Logits (B, V), valid until the next run. Each chunk is one token; its slot holds what is before it."""
        size = 1 << (len(chunks) - 1).bit_length()
        recorded = self._steps.get(size)
        if recorded is None:
            recorded = self._steps[size] = _Recorded(self._model, self._cache, size, self._spare, self._record)
        logits = recorded.run(chunks)
        slots = [chunk.slot for chunk in chunks]
        self._cache.lengths[slots] = torch.tensor([chunk.start + 1 for chunk in chunks])
        return logits


class _Recorded:
    def __init__(self, model: GPT, cache: KVCache, size: int, spare: int, record: Record) -> None:
        # Token, slot and position of each row, in one buffer that is filled at once.
        self._rows = torch.tensor([[0], [spare], [0]], device=model.device).repeat(1, size)  # (3, B)
        self._filler = [[0], [spare], [0]]
        self._size = size

        def compute() -> Tensor:
            token_ids, slots, positions = self._rows
            return model.decode(token_ids[:, None], DecodeStep(cache, slots, positions))

        # With no row but the spare slot's: a recording runs more than once, and would move the others on.
        with torch.inference_mode():
            self._logits, self._replay = record(compute)

    @torch.inference_mode()
    def run(self, chunks: Sequence[Chunk]) -> Tensor:
        columns = [
            [chunk.token_ids[0] for chunk in chunks],
            [chunk.slot for chunk in chunks],
            [chunk.start for chunk in chunks],
        ]
        missing = self._size - len(chunks)
        rows = [column + filler * missing for column, filler in zip(columns, self._filler, strict=True)]
        self._rows.copy_(torch.tensor(rows), non_blocking=True)
        self._replay()
        return self._logits[: len(chunks)]
