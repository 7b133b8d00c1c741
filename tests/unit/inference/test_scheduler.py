"""First come, first served; a row that waits for the calculator keeps its slot; who leaves is gone at once."""

from queue import SimpleQueue

from nanochat.engine.params import SamplingParams
from nanochat.engine.sequence import Sequence
from nanochat.protocol.generate import Done
from nanochat.tokenizer.bpe import Tokenizer
from nanochat_inference.batching.request import Request
from nanochat_inference.batching.scheduler import Scheduler

TOKENIZER = Tokenizer([bytes([byte]) for byte in range(256)])
PYTHON_START, PYTHON_END = (TOKENIZER.special_id(name) for name in ("<|python_start|>", "<|python_end|>"))


def _request(n: int = 1, length: int = 3) -> Request:
    prompt, params = [1] * length, SamplingParams(n=n)
    sequences = [Sequence(prompt, params, TOKENIZER, 50, index=index) for index in range(n)]
    return Request(sequences, SimpleQueue())


def test_requests_are_admitted_in_order_as_slots_allow() -> None:
    scheduler = Scheduler(2)
    first, second, third = _request(), _request(), _request()
    for request in (first, second, third):
        scheduler.add(request)
    rows = scheduler.admit()
    assert [scheduler.request_of(row) for row in rows] == [first, second]
    assert (scheduler.num_running, scheduler.num_waiting) == (2, 1)
    assert scheduler.requests == [first, second, third]
    scheduler.release(rows[0])
    assert [scheduler.request_of(row) for row in scheduler.admit()] == [third]


def test_a_row_that_waits_for_the_calculator_does_not_run_but_keeps_its_slot() -> None:
    scheduler = Scheduler(1)
    scheduler.add(_request())
    (row,) = scheduler.admit()
    row.sequence.append(PYTHON_START)
    assert scheduler.runnable() == [row]
    row.sequence.append(PYTHON_END)
    assert scheduler.runnable() == []
    assert not scheduler.can_run
    scheduler.add(_request())
    assert scheduler.admit() == []
    assert not scheduler.can_run
    row.sequence.answer("1")
    assert scheduler.runnable() == [row]


def test_a_removed_request_leaves_its_slots_and_the_queue() -> None:
    scheduler = Scheduler(2)
    leaving, staying = _request(n=3), _request()
    scheduler.add(leaving)
    scheduler.add(staying)
    rows = scheduler.admit()
    assert scheduler.remove(leaving) == 3
    assert scheduler.remove(leaving) == 0
    assert not any(scheduler.has(row) for row in rows)
    assert [scheduler.request_of(row) for row in scheduler.admit()] == [staying]
    assert scheduler.requests == [staying]


def test_a_finished_choice_is_not_counted_when_its_request_leaves() -> None:
    scheduler = Scheduler(4)
    request = _request(n=2)
    scheduler.add(request)
    first, _ = scheduler.admit()
    scheduler.release(first)
    assert scheduler.remove(request) == 1


def test_cached_tokens_are_those_of_rows_in_slots() -> None:
    scheduler = Scheduler(2)
    for length in (3, 5, 7):
        scheduler.add(_request(length=length))
    assert scheduler.num_cached_tokens == 0
    scheduler.admit()
    assert scheduler.num_cached_tokens == 8


def test_what_is_in_the_outbox_is_handed_over_once() -> None:
    request, done = _request(), Done(prompt_tokens=1, completion_tokens=1)
    request.send()
    request.outbox.append(done)
    request.send()
    request.send()
    assert request.events.get_nowait() == [done] and request.events.empty()
