"""Slots: what a copy takes along, and what it leaves alone; how much a layer with a window keeps."""

import pytest
import torch

from nanochat.config import GPTConfig
from nanochat.model import kv_cache
from nanochat.model.kv_cache import KVCache

CONFIG = GPTConfig(
    sequence_len=200,
    vocab_size=70,
    n_layer=3,
    n_head=2,
    n_kv_head=1,
    n_embd=32,
    window_pattern="SSL",
    short_window_divisor=20,
    short_window_multiple=1,
)
WINDOW = 10


def test_shapes_are_as_written() -> None:
    cache = KVCache(CONFIG, 3, 8)
    assert [numbers.shape for numbers in (*cache.keys, *cache.values)] == [(3, 8, 1, 16)] * 6
    assert cache.last_embedding.shape == (3, 32)
    assert cache.lengths.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("max_len", "max_chunk", "block_tokens", "page_tokens", "sizes"),
    [
        (200, 20, 1, None, (30, 200)),
        (200, 32, 16, None, (48, 200)),
        (190, 32, 16, 64, (64, 192)),
        (190, 64, 16, 64, (128, 192)),
        (200, 189, 1, None, (199, 200)),
        (200, 190, 1, None, (200, 200)),  # a ring as long as the context is none
        (40, 20, 1, None, (30, 40)),
        (25, 20, 1, None, (25, 25)),
        (70, 32, 16, 64, (64, 128)),
        (50, 32, 16, 64, (64, 64)),
        (200, None, 1, None, (200, 200)),
    ],
)
def test_a_layer_with_a_window_keeps_that_and_a_chunk(
    monkeypatch: pytest.MonkeyPatch,
    max_len: int,
    max_chunk: int | None,
    block_tokens: int,
    page_tokens: int | None,
    sizes: tuple[int, int],
) -> None:
    """In whole blocks, and in whole pages where flash-attn reads them. Memory is that and no more."""
    assert CONFIG.windows == (WINDOW, WINDOW, 200)
    monkeypatch.setattr(kv_cache, "page_tokens", lambda *_: page_tokens)
    cache = KVCache(CONFIG, 3, max_len, dtype=torch.bfloat16, max_chunk=max_chunk, block_tokens=block_tokens)
    windowed, full = sizes
    assert [keys.size(1) for keys in cache.keys] == [windowed, windowed, full]
    assert [values.shape for values in cache.values] == [keys.shape for keys in cache.keys]
    num_positions = 2 * windowed + full
    memory = {numbers.untyped_storage().data_ptr(): numbers for numbers in (*cache.keys, *cache.values)}
    assert sum(numbers.untyped_storage().nbytes() for numbers in memory.values()) == 2 * 3 * num_positions * 16 * 2


@pytest.mark.parametrize("length", [5, 29, 30, 31, 77])
def test_a_copy_takes_everything_of_its_source_and_touches_no_other(length: int) -> None:
    cache = KVCache(CONFIG, 3, 100, max_chunk=20)
    generator = torch.Generator().manual_seed(length)
    for tensor in (*cache.keys, *cache.values, cache.last_embedding):
        tensor.normal_(generator=generator)
    cache.lengths[:] = torch.tensor([length, 7, 2])
    before = [tensor.clone() for tensor in (*cache.keys, *cache.values)]
    embeddings = cache.last_embedding.clone()
    cache.copy_slot(0, 2)
    assert cache.lengths.tolist() == [length, 7, length]
    assert torch.equal(cache.last_embedding[2], embeddings[0])
    for copied, old in zip((*cache.keys, *cache.values), before, strict=True):
        held = [position % copied.size(1) for position in range(length)]
        assert torch.equal(copied[2, held], old[0, held])
        assert torch.equal(copied[:2], old[:2])
    assert torch.equal(cache.last_embedding[:2], embeddings[:2])


def test_a_reset_slot_is_empty_and_has_no_previous_token() -> None:
    cache = KVCache(CONFIG, 2, 8)
    cache.last_embedding.fill_(1)
    cache.lengths.fill_(4)
    cache.reset(1)
    assert cache.lengths.tolist() == [4, 0]
    assert not cache.last_embedding[1].any()
    assert cache.last_embedding[0].all()
