"""What int8 weights cost a model, in bits per byte of plain English. How much they may, is a setting of inference.

The text is what every machine with Python has, and not the model's own: it is the difference between the two forms of
the same weights that counts.
"""

import math
from collections.abc import Callable
from itertools import islice
from typing import Literal

import torch
import torch.nn.functional as F

from nanochat.data.python_docs import documents
from nanochat.engine.backend import Backend, Chunk
from nanochat.engine.native_backend import NativeBackend
from nanochat.model.gpt import GPT
from nanochat.tokenizer.bpe import Tokenizer

_NUM_TOKENS = 1536
_ROW_TOKENS = 256


def int8_cost_ratio(model: GPT, tokenizer: Tokenizer, on_progress: Callable[[], None] = lambda: None) -> float:
    """(int8 - float32) / float32, in bits per byte; below 0 where int8 happens to be better. Takes a second or
    two, in which on_progress is called again and again.

    Raises Unavailable where the CPU's kernels cannot be had.
    """
    rows = _rows(tokenizer, min(_ROW_TOKENS, model.config.sequence_len))
    length = max(map(len, rows))

    def cost(weights: Literal["fp32", "int8"]) -> float:
        backend = NativeBackend(model, num_slots=1, max_len=length, weights=weights, on_progress=on_progress)
        return bits_per_byte(backend, tokenizer, rows, on_progress)

    full = cost("fp32")
    return cost("int8") / full - 1


def bits_per_byte(
    backend: Backend, tokenizer: Tokenizer, rows: list[list[int]], on_progress: Callable[[], None] = lambda: None
) -> float:
    """Of the tokens after the first of each row (BOS), computed in slot 0."""
    nats, num_bytes = 0.0, 0
    byte_lengths = tokenizer.token_byte_lengths()
    for row in rows:
        start, previous = 0, -1
        while start < len(row) - 1:
            token_ids = row[start : start + min(backend.max_chunk, len(row) - 1 - start)]
            targets = row[start + 1 : start + 1 + len(token_ids)]
            logits = backend.forward_all(Chunk(0, start, token_ids, previous))
            nats += float(
                F.cross_entropy(logits.double(), torch.tensor(targets, device=logits.device), reduction="sum")
            )
            num_bytes += sum(byte_lengths[target] for target in targets)
            start, previous = start + len(token_ids), token_ids[-1]
            on_progress()
    return nats / (math.log(2) * max(num_bytes, 1))


def _rows(tokenizer: Tokenizer, length: int) -> list[list[int]]:
    rows: list[list[int]] = []
    for document in islice(documents(), 200):
        rows.append([tokenizer.bos_id, *tokenizer.encode(document)][:length])
        if sum(map(len, rows)) >= _NUM_TOKENS:
            break
    # A Python without its help topics and sources has nothing to read; then letters must do.
    return [row for row in rows if len(row) > 1] or [[tokenizer.bos_id, *tokenizer.encode("The quick brown fox.")]]
