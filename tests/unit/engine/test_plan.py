"""Who gets how many tokens computed: decoding rows always, prompts within the budget, short ones before long ones."""

from collections.abc import Callable

import pytest

from nanochat.engine.pace import MIN_PROMPT_TOKENS
from nanochat.engine.params import SamplingParams
from nanochat.engine.plan import plan_step
from nanochat.engine.sequence import Sequence
from nanochat.engine.slots import Row
from nanochat.tokenizer.bpe import Tokenizer

MakeRow = Callable[..., Row]


def _counts(rows: list[Row], budget: int, max_chunk: int = 1000) -> list[int | None]:
    counts = dict(plan_step(rows, budget, max_chunk))
    return [counts.get(row) for row in rows]


@pytest.fixture
def make_row(tokenizer: Tokenizer) -> MakeRow:
    def make_row(num_prompt: int, num_computed: int = 0) -> Row:
        sequence = Sequence([1] * num_prompt, SamplingParams(), tokenizer, 10_000)
        sequence.pending = sequence.pending[num_computed:]
        if num_computed == num_prompt:
            sequence.append(7)
        return Row(sequence, slot=0, num_computed=num_computed)

    return make_row


def test_rows_that_decode_take_part_whatever_the_budget(make_row: MakeRow) -> None:
    rows = [make_row(5, 5) for _ in range(9)]
    assert _counts(rows, budget=4) == [1] * 9


def test_a_prompt_gets_what_the_budget_leaves(make_row: MakeRow) -> None:
    assert _counts([make_row(5, 5), make_row(500)], budget=100) == [1, 99]
    assert _counts([make_row(5, 5)] * 1 + [make_row(500)], budget=1) == [1, MIN_PROMPT_TOKENS]
    assert _counts([make_row(500)], budget=1000, max_chunk=256) == [256]


def test_a_short_prompt_does_not_wait_behind_a_long_one(make_row: MakeRow) -> None:
    assert _counts([make_row(5000), make_row(40), make_row(60)], budget=128) == [128 - 40 - 56, 40, 56]


def test_the_longest_waiting_always_gets_a_quarter(make_row: MakeRow) -> None:
    rows = [make_row(5000), *(make_row(100) for _ in range(50))]
    assert _counts(rows, budget=128)[0] == 32
    assert sum(filter(None, _counts(rows, budget=128))) == 128


def test_what_a_tool_forced_is_computed_at_once(make_row: MakeRow) -> None:
    row = make_row(5, 5)
    row.sequence.pending = [1, 2, 3]
    assert _counts([row], budget=1) == [3]


def test_a_copy_waits_for_its_source(make_row: MakeRow) -> None:
    source, copy = make_row(50), make_row(50)
    copy.fork_of = source
    assert _counts([source, copy], budget=1000) == [50, None]
