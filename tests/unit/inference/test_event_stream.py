"""The first events as an answer or a status, deadlines on both sides of it, and a client that leaves early."""

import asyncio

import pytest

from nanochat.errors import DeadlineExceeded, NanochatError, Unavailable
from nanochat.protocol.generate import Delta, Done, GenerateError, GenerateEvent, Started, generate_event
from nanochat_inference.batching.request import EventQueue
from nanochat_inference.event_stream import first_events, frames

STARTED = Started(model="m", checkpoint="c", prompt_tokens=1)
DELTA = Delta(text="é\u2028\n", num_tokens=1)
DONE = Done(prompt_tokens=1, completion_tokens=1)


def _deadline(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def _read(first: list[GenerateEvent], events: EventQueue, deadline: float) -> list[GenerateEvent]:
    sent = b"".join([chunk async for chunk in frames(first, events, deadline)])
    lines = [line for line in sent.split(b"\n") if line]
    assert all(line.startswith(b"data: {") for line in lines)
    return [generate_event.validate_json(line[6:]) for line in lines]


async def test_events_are_framed_in_order_until_done() -> None:
    events = EventQueue()
    events.put([STARTED])
    events.put([DELTA, DONE])
    first = list(await first_events(events, _deadline(5)))
    assert await _read(first, events, _deadline(5)) == [STARTED, DELTA, DONE]


async def test_before_the_first_event_a_deadline_is_an_error_of_its_own() -> None:
    with pytest.raises(DeadlineExceeded):
        await first_events(EventQueue(), _deadline(0.01))


async def test_after_the_first_event_a_deadline_is_the_last_event() -> None:
    last = (await _read([STARTED], EventQueue(), _deadline(0.01)))[-1]
    assert isinstance(last, GenerateError) and last.code == "deadline_exceeded"


@pytest.mark.parametrize(("code", "kind"), [("unavailable", Unavailable), ("internal_error", NanochatError)])
async def test_an_error_in_place_of_the_first_event_becomes_a_status(code: str, kind: type[NanochatError]) -> None:
    events = EventQueue()
    events.put([GenerateError(code=code, message="why")])
    with pytest.raises(NanochatError, match="why") as caught:
        await first_events(events, _deadline(5))
    assert type(caught.value) is kind


async def test_an_error_event_ends_the_stream() -> None:
    error = GenerateError(code="internal_error", message="why")
    assert await _read([STARTED, error], EventQueue(), _deadline(5)) == [STARTED, error]
