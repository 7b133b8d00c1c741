"""What was computed before is found again, and changes nothing but the work."""

import random
from collections.abc import Callable

import pytest

from nanochat.config import GPTConfig
from nanochat.engine.backend import BLOCK_TOKENS, Backend
from nanochat.engine.params import SamplingParams
from nanochat.engine.prefix_cache import PrefixCache
from nanochat.engine.sequence import Sequence
from nanochat.engine.slots import Row
from nanochat.engine.step import DEFAULT_BUDGET, run_step
from nanochat.tokenizer.bpe import Tokenizer
from tests.decisive_model import decisive_model

MakeBackend = Callable[..., Backend]
GREEDY = SamplingParams(temperature=0, max_tokens=12)


def _ids(num: int, seed: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(256) for _ in range(num)]


def _step(backend: Backend, rows: list[Row], prefixes: PrefixCache | None, budget: int = DEFAULT_BUDGET) -> None:
    step = run_step(backend, rows, budget=budget, prefixes=prefixes)
    if prefixes is not None:
        prefixes.keep(step.rows)


def _run(
    backend: Backend,
    tokenizer: Tokenizer,
    prompt: list[int],
    prefixes: PrefixCache | None,
    slot: int = 0,
    budget: int = 64,
) -> Sequence:
    sequence = Sequence(list(prompt), GREEDY, tokenizer, backend.max_len)
    row = Row(sequence, slot)
    while not sequence.is_finished:
        _step(backend, [row], prefixes, budget)
        if sequence.expression is not None:
            sequence.answer("1")
    return sequence


def test_the_next_turn_of_a_chat_computes_only_what_is_new(make_backend: MakeBackend, tokenizer: Tokenizer) -> None:
    backend = make_backend(num_slots=3)
    prefixes = PrefixCache(backend, 100 * backend.block_bytes())
    first = _run(backend, tokenizer, [256, *_ids(100, 1)], prefixes)
    assert first.num_cached == 0
    turn = [*first.prompt_ids, *first.generated_ids, *_ids(30, 2)]
    second = _run(backend, tokenizer, turn, prefixes, slot=2)
    # All but what fills no block, and the newest token, which was never computed.
    num_seen = len(first.prompt_ids) + len(first.generated_ids) - 1
    assert second.num_cached == num_seen // BLOCK_TOKENS * BLOCK_TOKENS
    assert second.generated_ids == _run(make_backend(num_slots=1), tokenizer, turn, None).generated_ids


def test_prompts_that_begin_alike_share_their_beginning(make_backend: MakeBackend, tokenizer: Tokenizer) -> None:
    backend = make_backend(num_slots=2)
    prefixes = PrefixCache(backend, 100 * backend.block_bytes())
    system = [256, *_ids(69, 3)]
    # The first goes on far beyond the windows before the second asks for the beginning alone.
    _run(backend, tokenizer, [*system, *_ids(150, 4)], prefixes)
    for seed in range(5, 8):
        prompt = [*system, *_ids(20, seed)]
        found = _run(backend, tokenizer, prompt, prefixes, slot=seed % 2)
        assert found.num_cached == 64
        assert found.generated_ids == _run(make_backend(num_slots=1), tokenizer, prompt, None).generated_ids


def test_the_same_block_behind_another_beginning_is_another(make_backend: MakeBackend, tokenizer: Tokenizer) -> None:
    backend = make_backend(num_slots=1)
    prefixes = PrefixCache(backend, 100 * backend.block_bytes())
    same = _ids(16, 9)
    _run(backend, tokenizer, [256, *_ids(15, 10), *same, 1], prefixes)
    assert _run(backend, tokenizer, [256, *_ids(15, 11), *same, 1], prefixes).num_cached == 0


def test_a_prompts_last_token_is_always_computed(make_backend: MakeBackend, tokenizer: Tokenizer) -> None:
    backend = make_backend(num_slots=1)
    prefixes = PrefixCache(backend, 100 * backend.block_bytes())
    prompt = [256, *_ids(47, 12)]  # three blocks
    first = _run(backend, tokenizer, prompt, prefixes)
    second = _run(backend, tokenizer, prompt, prefixes)
    assert (second.num_cached, second.generated_ids) == (32, first.generated_ids)


def test_a_scored_prompt_is_kept_while_layers_with_windows_still_hold_it(
    make_backend: MakeBackend, tokenizer: Tokenizer
) -> None:
    """Longer than a window's ring, so that its beginning is overwritten before its end is computed."""
    config = GPTConfig(
        sequence_len=640, vocab_size=265, n_layer=3, n_head=2, n_kv_head=1, n_embd=32, short_window_divisor=20
    )
    model = decisive_model(config, seed=6)
    backend, plain = (make_backend(num_slots=1, max_len=640, model=model) for _ in range(2))
    prefixes = PrefixCache(backend, 100 * backend.block_bytes())
    system = [256, *_ids(40, 18)]
    row = Row(Sequence([*system, *_ids(560, 19)], GREEDY, tokenizer, backend.max_len), slot=0, scores=[None])
    while not row.sequence.generated_ids:
        _step(backend, [row], prefixes)
    assert row.scores is not None and len(row.scores) == 601
    for seed in range(20, 25):
        prompt = [*system, *_ids(5, seed)]
        found = _run(backend, tokenizer, prompt, prefixes)
        assert found.num_cached == 32
        assert found.generated_ids == _run(plain, tokenizer, prompt, None).generated_ids


@pytest.mark.parametrize("num_blocks", [0, 1, 3, 7])
def test_memory_is_bounded_and_results_are_the_same(
    make_backend: MakeBackend, tokenizer: Tokenizer, num_blocks: int
) -> None:
    backend, plain = make_backend(num_slots=2), make_backend(num_slots=1)
    prefixes = PrefixCache(backend, num_blocks * backend.block_bytes())
    system = _ids(40, 13)
    rng = random.Random(14)
    for _ in range(25):
        prompt = [256, *system[: rng.randint(0, 40)], *_ids(rng.randint(0, 40), rng.randint(0, 3))]
        found = _run(backend, tokenizer, prompt, prefixes, slot=rng.randrange(2))
        assert found.generated_ids == _run(plain, tokenizer, prompt, None).generated_ids
        assert found.num_cached <= num_blocks * BLOCK_TOKENS
    assert prefixes.usage_ratio == (1.0 if num_blocks else 0.0)


def test_what_was_used_longest_ago_goes_first_and_leaves_nothing_out_of_reach(
    make_backend: MakeBackend, tokenizer: Tokenizer
) -> None:
    backend = make_backend(num_slots=1)
    prefixes = PrefixCache(backend, 8 * backend.block_bytes())
    old, new = [256, *_ids(50, 15)], [256, *_ids(50, 16)]
    _run(backend, tokenizer, old, prefixes)  # 62 tokens computed at most: three blocks
    _run(backend, tokenizer, new, prefixes)
    assert _run(backend, tokenizer, old, prefixes).num_cached == 48  # used again
    _run(backend, tokenizer, [256, *_ids(70, 17)], prefixes)  # needs more than what is free
    assert _run(backend, tokenizer, old, prefixes).num_cached == 48
    assert _run(backend, tokenizer, new, prefixes).num_cached < 48


@pytest.mark.parametrize("budget", [32, 1024])  # many calls of keep(), or one
def test_of_a_prompt_longer_than_the_whole_store_the_beginning_stays(
    make_backend: MakeBackend, tokenizer: Tokenizer, budget: int
) -> None:
    backend, plain = make_backend(num_slots=1), make_backend(num_slots=1)
    prefixes = PrefixCache(backend, 4 * backend.block_bytes())
    prompt = [256, *_ids(150, 21)]
    for num_cached in (0, 64):
        found = _run(backend, tokenizer, prompt, prefixes, budget=budget)
        assert found.num_cached == num_cached
        assert found.generated_ids == _run(plain, tokenizer, prompt, None).generated_ids
    # Nothing is held by it for ever: another prompt takes its place.
    other = [256, *_ids(150, 22)]
    assert [_run(backend, tokenizer, other, prefixes).num_cached for _ in range(2)] == [0, 64]


def test_of_rows_in_turn_that_together_are_longer_than_the_store_every_kept_block_can_be_found(
    make_backend: MakeBackend, tokenizer: Tokenizer
) -> None:
    """Behind one that is gone none could be: it must not take the place of one that can."""
    backend = make_backend(num_slots=3)
    prefixes = PrefixCache(backend, 7 * backend.block_bytes())
    rows = [Row(Sequence([256, *_ids(90, 23 + i)], GREEDY, tokenizer, backend.max_len), slot=i) for i in range(2)]
    while going := [row for row in rows if not row.sequence.generated_ids]:
        for row in going:
            _step(backend, [row], prefixes, budget=16)
    num_found = 0
    for row in rows:
        again = [*row.sequence.prompt_ids, *row.sequence.generated_ids]
        fresh = Row(Sequence(again, GREEDY, tokenizer, backend.max_len), slot=2)
        prefixes.restore(fresh)
        num_found += fresh.num_computed // BLOCK_TOKENS
    assert (num_found, prefixes.usage_ratio) == (7, 1.0)


def test_a_block_that_another_row_has_kept_meanwhile_counts_as_used(
    make_backend: MakeBackend, tokenizer: Tokenizer
) -> None:
    """Else, being the oldest, it would have to go for the very blocks that lie behind it."""
    backend = make_backend(num_slots=4)
    prefixes = PrefixCache(backend, 3 * backend.block_bytes())
    shared = [256, *_ids(15, 25)]
    # One block, two that take what room is left, and two of which the first is there by then.
    prompts = [[*shared, 1], [256, *_ids(31, 26)], [*shared, *_ids(16, 27)]]
    rows = [Row(Sequence(prompt, GREEDY, tokenizer, backend.max_len), slot) for slot, prompt in enumerate(prompts)]
    _step(backend, rows, prefixes)
    again = Row(Sequence([*prompts[2], 1], GREEDY, tokenizer, backend.max_len), slot=3)
    prefixes.restore(again)
    assert again.num_computed == 32


def test_blocks_that_could_not_be_saved_are_not_found(
    make_backend: MakeBackend, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make_backend(num_slots=1)
    prefixes = PrefixCache(backend, 7 * backend.block_bytes())
    prompt = [256, *_ids(40, 28)]
    row = Row(Sequence(prompt, GREEDY, tokenizer, backend.max_len), slot=0)
    step = run_step(backend, [row], prefixes=prefixes)
    with monkeypatch.context() as patch:
        patch.setattr(prefixes._store, "save", _fails)
        with pytest.raises(MemoryError):
            prefixes.keep(step.rows)
    assert prefixes.usage_ratio == 0.0
    assert [_run(backend, tokenizer, prompt, prefixes).num_cached for _ in range(2)] == [0, 32]


def _fails(*_: object) -> None:
    raise MemoryError
