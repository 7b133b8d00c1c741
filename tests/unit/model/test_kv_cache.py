"""Slots: what a copy takes along, and what it leaves alone."""

import torch

from nanochat.config import GPTConfig
from nanochat.model.kv_cache import KVCache

CONFIG = GPTConfig(sequence_len=16, vocab_size=70, n_layer=2, n_head=2, n_kv_head=1, n_embd=32)


def test_shapes_are_as_written() -> None:
    cache = KVCache(CONFIG, 3, 8)
    assert cache.keys.shape == cache.values.shape == (2, 3, 8, 1, 16)
    assert cache.last_embedding.shape == (3, 32)
    assert cache.lengths.tolist() == [0, 0, 0]


def test_a_copy_takes_everything_of_its_source_and_touches_no_other() -> None:
    cache = KVCache(CONFIG, 3, 8)
    for tensor in (cache.keys, cache.values, cache.last_embedding):
        tensor.normal_(generator=torch.Generator().manual_seed(0))
    cache.lengths[:] = torch.tensor([5, 7, 2])
    before = [tensor.clone() for tensor in (cache.keys, cache.values, cache.last_embedding)]
    cache.copy_slot(0, 2)
    assert cache.lengths.tolist() == [5, 7, 5]
    assert torch.equal(cache.keys[:, 2, :5], before[0][:, 0, :5])
    assert torch.equal(cache.values[:, 2, :5], before[1][:, 0, :5])
    assert torch.equal(cache.last_embedding[2], before[2][0])
    for slot in (0, 1):
        assert torch.equal(cache.keys[:, slot], before[0][:, slot])
        assert torch.equal(cache.values[:, slot], before[1][:, slot])


def test_a_reset_slot_is_empty_and_has_no_previous_token() -> None:
    cache = KVCache(CONFIG, 2, 8)
    cache.last_embedding.fill_(1)
    cache.lengths.fill_(4)
    cache.reset(1)
    assert cache.lengths.tolist() == [4, 0]
    assert not cache.last_embedding[1].any()
    assert cache.last_embedding[0].all()
