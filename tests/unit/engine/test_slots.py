from collections import deque

import pytest

from nanochat.engine.params import SamplingParams
from nanochat.engine.sequence import Sequence
from nanochat.engine.slots import Slots
from nanochat.tokenizer.bpe import Tokenizer


@pytest.fixture
def waiting(tokenizer: Tokenizer) -> deque[Sequence]:
    """Three choices of one prompt, then one of another with the same tokens."""
    first, second = [1, 2], [1, 2]
    params = SamplingParams()
    return deque(
        [Sequence(first, params, tokenizer, 10, index=i) for i in range(3)] + [Sequence(second, params, tokenizer, 10)]
    )


def test_the_longest_waiting_get_the_lowest_slots(waiting: deque[Sequence]) -> None:
    order = list(waiting)
    slots = Slots(2)
    rows = slots.admit(waiting)
    assert [(row.sequence, row.slot) for row in rows] == [(order[0], 0), (order[1], 1)]
    assert list(waiting) == order[2:]
    assert slots.admit(waiting) == []
    slots.release(rows[0])
    assert [(row.sequence, row.slot) for row in slots.admit(waiting)] == [(order[2], 0)]


def test_choices_that_begin_together_share_their_prompt_and_later_ones_do_not(waiting: deque[Sequence]) -> None:
    slots = Slots(4)
    rows = slots.admit(waiting)
    assert [row.fork_of for row in rows] == [None, rows[0], rows[0], None]
    assert not any(row.num_computed for row in rows)


def test_choices_begin_by_themselves_when_the_first_has_left(waiting: deque[Sequence]) -> None:
    slots = Slots(3)
    first, second, third = slots.admit(waiting)
    slots.release(first)
    assert (second.fork_of, third.fork_of) == (None, None)
