"""The first piece as an answer or a status, deadlines on both sides of it, and exactly one error at a bad end."""

import asyncio

import pytest

from nanochat.errors import DeadlineExceeded, NanochatError, Unavailable
from nanochat.protocol.generate import Delta, Done, GenerateError, GenerateEvent, Started, generate_event
from nanochat_inference.event_stream import first_piece, frames
from nanochat_inference.pool.flight import Flight, Piece

STARTED = Started(model="m", checkpoint="c", prompt_tokens=1)
DELTA = Delta(text="é\u2028\n", num_tokens=1)
DONE = Done(prompt_tokens=1, completion_tokens=1)


def _flight() -> Flight:
    return Flight(1, b"", num_choices=1, prompt_bytes=1, tokens=1, beginnings=[])


def _piece(*events: GenerateEvent, is_last: bool = False) -> Piece:
    return Piece(b"".join(f"data: {event.model_dump_json()}\n\n".encode() for event in events), is_last)


def _deadline(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def _read(first: Piece, flight: Flight, deadline: float) -> list[GenerateEvent]:
    sent = b"".join([chunk async for chunk in frames(first, flight, deadline)])
    lines = [line for line in sent.split(b"\n") if line]
    assert all(line.startswith(b"data: {") for line in lines)
    return [generate_event.validate_json(line[6:]) for line in lines]


async def test_pieces_go_on_in_order_until_the_last() -> None:
    flight = _flight()
    flight.say(_piece(STARTED))
    flight.say(_piece(DELTA, DONE, is_last=True))
    first = await first_piece(flight, _deadline(5))
    assert await _read(first, flight, _deadline(5)) == [STARTED, DELTA, DONE]


async def test_before_the_first_piece_a_deadline_is_an_error_of_its_own() -> None:
    with pytest.raises(DeadlineExceeded):
        await first_piece(_flight(), _deadline(0.01))


async def test_after_the_first_piece_a_deadline_is_the_last_event() -> None:
    last = (await _read(_piece(STARTED), _flight(), _deadline(0.01)))[-1]
    assert isinstance(last, GenerateError) and last.code == "deadline_exceeded"


@pytest.mark.parametrize("error", [Unavailable("why"), NanochatError("why")])
async def test_an_error_in_place_of_the_first_piece_is_raised(error: NanochatError) -> None:
    flight = _flight()
    flight.fail(error)
    with pytest.raises(NanochatError, match="why") as caught:
        await first_piece(flight, _deadline(5))
    assert type(caught.value) is type(error)


async def test_an_error_in_mid_answer_is_told_once_and_ends_it() -> None:
    flight = _flight()
    flight.fail(Unavailable("why"))
    flight.fail(Unavailable("again"))
    error = GenerateError(code="unavailable", message="why")
    assert await _read(_piece(STARTED), flight, _deadline(5)) == [STARTED, error]
