"""Rows of random tokens through the CPU's kernels, in whatever pieces, and what holds of them in every library."""

import random
from collections.abc import Iterator

import torch
from torch import Tensor

from nanochat.engine.packed_model import NativeCache, NativeModel, Weights
from nanochat.model.gpt import GPT
from nanochat.model.names import named_tensors

# To gpt.py: the same float32 sums in another order.
TOLERANCE = 2e-5

Step = tuple[int, int, int]


def assert_float32_is_the_models(model: GPT, num_threads: int) -> None:
    """Two rows as long as the context, prompts and single tokens, in pieces of all sizes."""
    tokens = random_tokens(model, 2)
    native = NativeModel(model.config, named_tensors(model), num_threads=num_threads)
    with torch.inference_mode():
        expected = model(torch.tensor(tokens))
    for row, found in enumerate(row_by_row(native, tokens, seed=num_threads)):
        torch.testing.assert_close(found, expected[row], rtol=0.0, atol=TOLERANCE)


def assert_rows_are_the_same_in_any_company(model: GPT, weights: Weights, num_seeds: int) -> None:
    """Ragged rows that join and leave, in any cut, on two threads: to the bit what each is alone, on one."""
    tokens = random_tokens(model, 5)
    alone = row_by_row(NativeModel(model.config, named_tensors(model), weights=weights), tokens, seed=0)
    native = NativeModel(model.config, named_tensors(model), weights=weights, num_threads=2)
    for seed in range(num_seeds):
        for slot, start, logits in in_company(native, tokens, seed):
            assert torch.equal(logits, alone[slot][start : start + len(logits)]), (seed, slot, start)


def random_tokens(model: GPT, num_rows: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    shape = (num_rows, model.config.sequence_len)
    tokens: list[list[int]] = torch.randint(model.config.vocab_size, shape, generator=generator).tolist()
    return tokens


def all_logits(native: NativeModel, cache: NativeCache, tokens: list[list[int]], rows: list[Step]) -> Tensor:
    """All logits of one step; slot s continues row s of tokens."""
    token_ids = [token for slot, start, count in rows for token in tokens[slot][start : start + count]]
    previous = [
        tokens[slot][place - 1] if place else -1 for slot, start, count in rows for place in range(start, start + count)
    ]
    return native.step(cache, rows, token_ids, previous, range(len(token_ids)))


def _cut(length: int, seed: int, longest: int) -> list[int]:
    rng, pieces = random.Random(seed), []
    while sum(pieces) < length:
        pieces.append(min(rng.choice([1, 1, 2, 7, 40, longest]), length - sum(pieces), longest))
    return pieces


def row_by_row(native: NativeModel, tokens: list[list[int]], seed: int, max_step: int = 64) -> list[Tensor]:
    """Each row in a cache of its own, cut anyhow."""
    found = []
    for slot in range(len(tokens)):
        cache, start, pieces = native.new_cache(len(tokens), len(tokens[slot]), max_step), 0, []
        for count in _cut(len(tokens[slot]), seed + slot, max_step):
            pieces.append(all_logits(native, cache, tokens, [(slot, start, count)]))
            start += count
        found.append(torch.cat(pieces))
    return found


def in_company(native: NativeModel, tokens: list[list[int]], seed: int) -> Iterator[tuple[int, int, Tensor]]:
    """Ragged rows that join and leave, in any cut, until each is half done: slot, start and logits of each piece."""
    rng, num_slots, length = random.Random(seed), len(tokens), len(tokens[0])
    cache, starts = native.new_cache(num_slots, length, 48), [0] * num_slots
    while min(starts) < length // 2:
        left = [slot for slot in range(num_slots) if starts[slot] < length]
        chosen = rng.sample(left, rng.randint(1, len(left)))
        rows = [(slot, starts[slot], min(rng.choice([1, 1, 3, 17, 48]), length - starts[slot])) for slot in chosen]
        found = all_logits(native, cache, tokens, rows).split([count for _, _, count in rows])
        for (slot, start, count), logits in zip(rows, found, strict=True):
            yield slot, start, logits
            starts[slot] += count
