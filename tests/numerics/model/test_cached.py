"""Decoding through the cache gives what one forward over the whole row gives, however the row is cut up."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from nanochat.config import GPTConfig
from nanochat.errors import ContextTooLong
from nanochat.model.gpt import GPT
from nanochat.model.kv_cache import KVCache
from tests.numerics.constants import EARLIER

CONFIG = GPTConfig(sequence_len=200, vocab_size=70, n_layer=3, n_head=4, n_kv_head=2, n_embd=32, window_pattern="SL")
NARROW = {"short_window_divisor": 8, "short_window_multiple": 1}
# The same float32 sums in another order.
TOLERANCE = {"rtol": 0.0, "atol": 2e-5}
MakeCache = Callable[..., KVCache]


@pytest.fixture(
    scope="module",
    params=[{"n_kv_head": 2}, {"n_kv_head": 4}, NARROW, EARLIER, {**EARLIER, "value_embeddings": False}],
    ids=["grouped heads", "equal heads", "narrow windows", "older constants", "the first constants"],
)
def model(request: pytest.FixtureRequest, random_model: Callable[[GPTConfig], GPT]) -> GPT:
    return random_model(GPTConfig.from_dict(CONFIG.to_dict() | request.param)).requires_grad_(False)


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    return torch.randint(CONFIG.vocab_size, (5, CONFIG.sequence_len), generator=torch.Generator().manual_seed(3))


@pytest.fixture(params=[None, 17], ids=["the whole context", "rings"])
def make_cache(request: pytest.FixtureRequest, model: GPT) -> MakeCache:
    """Of a model's windows: 128 positions go round a ring of 145 once, 25 round one of 42 four times."""

    def make_cache(num_slots: int, max_len: int = CONFIG.sequence_len) -> KVCache:
        return KVCache(model.config, num_slots, max_len, max_chunk=request.param)

    return make_cache


def feed(model: GPT, cache: KVCache, tokens: Tensor, slots: list[int], num_new: list[int]) -> Tensor:
    """Continue each slot with its next num_new tokens of its row, in as many steps as the cache asks for; logits
    (B, T, V), padded."""
    found: list[list[Tensor]] = [[] for _ in slots]
    while True:
        counts = [min(count, cache.max_chunk) for count in num_new]
        for row, logits in enumerate(_feed_chunk(model, cache, tokens, slots, counts)):
            found[row].append(logits)
        num_new = [count - done for count, done in zip(num_new, counts, strict=True)]
        if not any(num_new):
            return pad_sequence([torch.cat(parts) for parts in found], batch_first=True)


def _feed_chunk(model: GPT, cache: KVCache, tokens: Tensor, slots: list[int], num_new: list[int]) -> tuple[Tensor, ...]:
    padded = torch.zeros(len(slots), max(num_new), dtype=torch.int64)
    for row, (slot, count) in enumerate(zip(slots, num_new, strict=True)):
        start = int(cache.lengths[slot])
        padded[row, :count] = tokens[row, start : start + count]
    counts = torch.tensor(num_new)
    logits = model.forward_cached(padded, cache, torch.tensor(slots), counts, num_wanted=counts)
    return logits.split(num_new)


@pytest.mark.parametrize(
    "slots",
    [[0, 1, 2, 3, 4], [3, 1, 4, 0, 2], [0, 9, 21, 33, 39], [30, 33, 31, 34, 38]],
    ids=["first slots", "first slots out of order", "far apart", "close together with gaps"],
)
def test_ragged_rows_equal_whole_rows(model: GPT, make_cache: MakeCache, tokens: Tensor, slots: list[int]) -> None:
    """A ragged prefill, ragged chunks, then single tokens; some rows pass the window, some do not."""
    whole = model(tokens)
    cache = make_cache(40)
    for num_new in ([3, 140, 150, 1, 60], [10, 1, 5, 30, 2], [1] * 5, [1] * 5, [1, 2, 1, 2, 1], [1] * 5):
        starts = cache.lengths[slots].tolist()
        found = feed(model, cache, tokens, slots, num_new)
        for row, (start, count) in enumerate(zip(starts, num_new, strict=True)):
            torch.testing.assert_close(found[row, :count], whole[row, start : start + count], **TOLERANCE)
    assert cache.lengths[slots].tolist() == [17, 146, 159, 36, 66]


@pytest.mark.parametrize("max_chunk", [None, 60])
def test_rows_of_unlike_lengths_read_no_more_than_their_windows(
    tokens: Tensor, random_model: Callable[[GPTConfig], GPT], max_chunk: int | None
) -> None:
    """What lies before them is spoilt, and nobody learns of it; within one it is noticed."""
    model = random_model(GPTConfig.from_dict(CONFIG.to_dict() | NARROW)).requires_grad_(False)
    window, starts = model.config.windows[0], [30, 190, 100, 60]
    whole = model(tokens[:4])
    for spoilt_up_to, is_noticed in ((0, False), (1, True)):
        cache = KVCache(model.config, 4, CONFIG.sequence_len, max_chunk=max_chunk)
        feed(model, cache, tokens[:4], [0, 1, 2, 3], starts)
        for slot, start in enumerate(starts):
            for numbers in (cache.keys[0], cache.values[0]):
                size = numbers.size(1)
                first_held = max(0, start + 1 - size)  # once the next token is stored
                places = [position % size for position in range(first_held, start - window + spoilt_up_to)]
                numbers[slot, places] = float("nan")
        found = feed(model, cache, tokens[:4], [0, 1, 2, 3], [1, 1, 1, 1])
        if is_noticed:
            assert found.isnan().all()
        else:
            expected = torch.stack([whole[slot, start] for slot, start in enumerate(starts)])
            torch.testing.assert_close(found[:, 0], expected, **TOLERANCE)


def test_each_row_gives_the_logits_after_as_many_last_tokens_as_are_wanted(model: GPT, tokens: Tensor) -> None:
    cache = KVCache(model.config, 3, CONFIG.sequence_len)
    num_new, wanted = torch.tensor([8, 3, 5]), torch.tensor([2, 3, 0])
    found = model.forward_cached(tokens[:3, :8], cache, torch.tensor([0, 1, 2]), num_new, num_wanted=wanted)
    whole = model(tokens[:2])
    torch.testing.assert_close(found, torch.cat([whole[0, 6:8], whole[1, :3]]), **TOLERANCE)


def test_by_default_each_row_gives_the_logits_after_its_last_token(model: GPT, tokens: Tensor) -> None:
    cache = KVCache(model.config, 2, CONFIG.sequence_len)
    found = model.forward_cached(tokens[:2, :8], cache, torch.tensor([0, 1]), torch.tensor([8, 3]))
    whole = model(tokens[:2])
    torch.testing.assert_close(found, torch.stack([whole[0, 7], whole[1, 2]]), **TOLERANCE)


def test_rows_of_any_cut_are_one_row(model: GPT, make_cache: MakeCache, tokens: Tensor) -> None:
    """Prefill in chunks: 1 + 127 + 2 + 70 tokens cross the window's edge at every kind of place."""
    cache = make_cache(1)
    pieces = [feed(model, cache, tokens[:1], [0], [count]) for count in (1, 127, 2, 70)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(tokens[:1]), **TOLERANCE)


def test_copied_slots_go_their_own_ways(model: GPT, make_cache: MakeCache, tokens: Tensor) -> None:
    cache = make_cache(3)
    feed(model, cache, tokens[:1], [1], [150])
    cache.copy_slot(1, 0)
    cache.copy_slot(1, 2)
    branches = tokens[:1].repeat(3, 1)
    branches[1, 150:], branches[2, 150:] = tokens[1, 150:], tokens[2, 150:]
    whole = model(branches)
    for t in range(150, 155):
        found = feed(model, cache, branches, [0, 1, 2], [1, 1, 1])
        torch.testing.assert_close(found[:, 0], whole[:, t], **TOLERANCE)


def test_a_reset_slot_remembers_nothing(model: GPT, make_cache: MakeCache, tokens: Tensor) -> None:
    cache, fresh = make_cache(2), make_cache(2)
    feed(model, cache, tokens[:2], [0, 1], [150, 30])
    cache.reset(0)
    cache.reset(1)
    assert torch.equal(feed(model, cache, tokens[3:5], [0, 1], [9, 4]), feed(model, fresh, tokens[3:5], [0, 1], [9, 4]))


def test_a_row_without_new_tokens_stays_as_it_is(model: GPT, make_cache: MakeCache, tokens: Tensor) -> None:
    cache = make_cache(2)
    feed(model, cache, tokens[:2], [0, 1], [5, 5])
    feed(model, cache, tokens[:2], [0, 1], [0, 3])
    found = feed(model, cache, tokens[:2], [0, 1], [1, 1])
    whole = model(tokens[:2])
    torch.testing.assert_close(found[:, 0], torch.stack([whole[0, 5], whole[1, 8]]), **TOLERANCE)


def test_a_slot_that_would_outgrow_the_cache_is_refused_and_unharmed(
    model: GPT, make_cache: MakeCache, tokens: Tensor
) -> None:
    cache = make_cache(2, 16)
    feed(model, cache, tokens[:2], [0, 1], [15, 4])
    with pytest.raises(ContextTooLong, match="slot 0 would hold 17 tokens; the cache takes 16"):
        feed(model, cache, tokens[:2], [0, 1], [2, 2])
    assert cache.lengths.tolist() == [15, 4]
    found = feed(model, cache, tokens[:2], [0, 1], [1, 1])
    torch.testing.assert_close(found[0, 0], model(tokens[:1])[0, 15], **TOLERANCE)
