"""Admission, choice, loss and retry by the book, without a process."""

import asyncio
from pathlib import Path

import pytest

from nanochat.errors import CheckpointCorrupt, InvalidRequest, NanochatError, Unavailable
from nanochat_inference.pool.flight import Piece
from nanochat_inference.pool.frames import Cancel, Drop, Events, Load, Loaded, NotLoaded, Rejected, Returned, Use
from nanochat_inference.pool.pool import MAX_ATTEMPTS
from nanochat_inference.pool.worker import WorkerLost
from nanochat_inference.settings import InferenceSettings

from .conftest import SERVED, Stage


def last(number: int, num_ended: int = 1) -> Events:
    return Events(number, num_ended, num_tokens=5, is_last=True, text=b"end")


def begin(number: int) -> Events:
    return Events(number, 0, num_tokens=1, is_last=False, text=b"begin")


async def test_requests_go_to_the_least_loaded_worker_in_turn(stage: Stage) -> None:
    flights = [stage.ask() for _ in range(4)]
    assert stage.wires[0].requests == [flights[0].number, flights[2].number]
    assert stage.wires[1].requests == [flights[1].number, flights[3].number]
    stage.tells(1, last(flights[1].number))
    assert stage.ask().number in stage.wires[1].requests


async def test_a_worker_is_given_twice_its_slots_and_the_rest_waits_in_order(stage: Stage) -> None:
    stage.dies(1)
    flights = [stage.ask() for _ in range(6)]
    assert stage.wires[0].requests == [flight.number for flight in flights[:4]]
    assert stage.pool.stats()["num_waiting"] == 2
    stage.tells(0, last(flights[0].number))
    assert stage.wires[0].requests[-1] == flights[4].number


async def test_more_choices_than_places_are_refused_and_more_than_ever_fit_are_an_error(stage: Stage) -> None:
    with pytest.raises(InvalidRequest, match="7 choices"):
        stage.ask(n=8)
    stage.ask(n=5)
    with pytest.raises(Unavailable) as caught:
        stage.ask(n=3)
    assert caught.value.retry_after_s == 1
    stage.ask(n=2)
    assert stage.pool.num_open == 7


async def test_waiting_tokens_are_bounded_but_a_long_request_alone_is_taken() -> None:
    stage = Stage(InferenceSettings(max_running=8, max_waiting_tokens=200), num_workers=1)
    first = stage.ask("x" * 5000)
    with pytest.raises(Unavailable, match="tokens wait"):
        stage.ask()
    stage.tells(0, begin(first.number))
    stage.ask()


async def test_pieces_and_the_last_one_reach_the_client(stage: Stage) -> None:
    flight = stage.ask()
    stage.tells(0, begin(flight.number), last(flight.number))
    assert [await flight.next_piece(), await flight.next_piece()] == [Piece(b"begin", False), Piece(b"end", True)]
    assert stage.pool.num_open == 0


async def test_a_choice_that_ends_gives_its_place_before_the_request_does(stage: Stage) -> None:
    flight = stage.ask(n=3)
    stage.tells(0, Events(flight.number, 2, num_tokens=9, is_last=False, text=b"x"))
    assert stage.pool.num_open == 1


async def test_a_refusal_keeps_its_class_its_field_and_its_time(stage: Stage) -> None:
    flight = stage.ask()
    stage.says(0, Rejected(number=flight.number, code="context_length_exceeded", message="long", param="messages"))
    with pytest.raises(InvalidRequest, match="long") as caught:
        await flight.next_piece()
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")
    assert stage.pool.num_open == 0


async def test_what_a_lost_worker_had_begun_fails_once_and_the_rest_goes_first_to_another(stage: Stage) -> None:
    begun, other, waiting = stage.ask(), stage.ask(), stage.ask()
    stage.tells(0, begin(begun.number))
    stage.dies(0)
    assert await begun.next_piece() == Piece(b"begin", False)
    with pytest.raises(Unavailable, match="ask again"):
        await begun.next_piece()
    assert stage.wires[1].requests == [other.number, waiting.number]
    assert waiting.num_attempts == 2
    assert stage.totals.registry.get_sample_value("nanochat_worker_restarts_total") == 1
    errors = stage.totals.registry.get_sample_value("nanochat_request_success_total", {"finished_reason": "error"})
    assert errors == 1


async def test_a_request_waits_for_a_worker_and_is_given_to_the_first_that_comes(stage: Stage) -> None:
    flight = stage.ask()
    stage.dies(1)
    stage.dies(0)
    assert stage.pool.unready_reasons()
    stage.revive(1)
    await stage.pool.bring_up(stage.workers[1])
    assert stage.wires[1].requests == [flight.number]


async def test_a_request_that_outlives_too_many_workers_is_given_up(stage: Stage) -> None:
    stage.dies(1)
    flight = stage.ask()
    for _ in range(MAX_ATTEMPTS - 1):
        stage.dies(0)
        stage.revive(0)
        await stage.pool.bring_up(stage.workers[0])
    stage.dies(0)
    with pytest.raises(Unavailable, match="not tried again"):
        await flight.next_piece()
    assert stage.pool.num_open == 0


async def test_what_a_failed_step_gives_back_goes_to_another_worker(stage: Stage) -> None:
    failed, other, _ = (stage.ask() for _ in range(3))
    stage.says(0, Returned(number=failed.number))
    assert stage.wires[1].requests == [other.number, failed.number]


async def test_where_there_is_no_other_the_same_worker_tries_again_before_what_came_later(stage: Stage) -> None:
    stage.dies(1)
    flights = [stage.ask() for _ in range(6)]
    stage.says(0, Returned(number=flights[1].number))
    assert stage.wires[0].requests == [*(flight.number for flight in flights[:4]), flights[1].number]
    stage.tells(0, last(flights[1].number))
    assert await flights[1].next_piece() == Piece(b"end", True)


async def test_a_request_with_which_one_step_after_another_fails_is_given_up(stage: Stage) -> None:
    flight = stage.ask()
    for attempt in range(MAX_ATTEMPTS):
        stage.says(attempt % 2, Returned(number=flight.number))
    with pytest.raises(Unavailable, match=r"4 times .* not tried again"):
        await asyncio.wait_for(flight.next_piece(), 5)
    assert stage.pool.num_open == 0
    assert [wire.requests for wire in stage.wires] == [[flight.number] * 2] * 2
    errors = stage.totals.registry.get_sample_value("nanochat_request_success_total", {"finished_reason": "error"})
    assert errors == 1
    stage.says(0, Returned(number=flight.number))  # its client has left


async def test_where_no_worker_stays_alive_nobody_waits(stage: Stage) -> None:
    flight = stage.ask()
    for supervisor in stage.pool._supervisors:
        supervisor._num_failures = 3
    stage.dies(1)
    stage.dies(0)
    with pytest.raises(Unavailable, match="no worker stays alive"):
        await flight.next_piece()
    with pytest.raises(Unavailable, match="no worker stays alive"):
        stage.ask()


async def test_a_client_that_leaves_is_taken_back_wherever_it_is(stage: Stage) -> None:
    flights = [stage.ask() for _ in range(7)]
    given = stage.wires[0].requests
    assert flights[-1].number in given or flights[-1].number in stage.wires[1].requests
    stage.pool.cancel(flights[0])
    assert stage.wires[0].control[-1] == Cancel(number=flights[0].number)
    stage.tells(0, begin(flights[0].number))  # said before it knew
    stage.pool.cancel(flights[0])
    assert stage.pool.num_open == 6


async def test_stopping_tells_everybody_once(stage: Stage) -> None:
    flights = [stage.ask() for _ in range(5)]
    stage.pool.abort_all(Unavailable("stopping"))
    for flight in flights:
        with pytest.raises(Unavailable, match="stopping"):
            await flight.next_piece()
    assert stage.pool.num_open == 0


async def test_a_worker_that_is_gone_when_it_is_to_load_says_so(stage: Stage) -> None:
    """Between the look at who is up and the asking, its channel may close."""
    stage.workers[0].lose()
    with pytest.raises(WorkerLost):
        await asyncio.wait_for(stage.workers[0].load("b", Path("b")), 5)


async def test_stopping_ends_a_swap_that_waits_for_a_worker(stage: Stage) -> None:
    stage.dies(0)
    stage.dies(1)
    serving = asyncio.create_task(stage.pool.serve("b", Path("b")))
    await asyncio.sleep(0)
    await stage.pool.stop()
    with pytest.raises(Unavailable, match="stopping"):
        await asyncio.wait_for(serving, 5)


async def test_the_beginning_of_a_chat_leads_back_to_its_worker_until_that_has_two_more(stage: Stage) -> None:
    text = "x" * 300
    first = stage.ask(text)
    stage.tells(0, last(first.number))
    for expected in (0, 0, 0, 1):  # 0, 1 and 2 choices more than the other; then the least loaded
        assert stage.ask(text + "and so on").number in stage.wires[expected].requests


async def _swap(stage: Stage, *answers: object) -> BaseException | None:
    """Serve "b"; each worker answers as given. None to let it die."""
    serving = asyncio.create_task(stage.pool.serve("b", Path("b")))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for index, answer in enumerate(answers):
        assert stage.wires[index].control[-1] == Load(reference="b", folder=Path("b"))
        if answer is None:
            stage.dies(index)
        else:
            stage.says(index, answer)  # type: ignore[arg-type]
    (result,) = await asyncio.gather(serving, return_exceptions=True)
    return result


NEW = SERVED.model_copy(update={"checkpoint": "b/sft/step_000001"})


async def test_a_swap_is_made_in_all_workers_at_once(stage: Stage) -> None:
    assert await _swap(stage, *[Loaded(reference="b", served=NEW)] * 2) is None
    assert [wire.control[-1] for wire in stage.wires] == [Use(reference="b")] * 2
    assert stage.pool.served == NEW
    model = {"model": "nanochat", "checkpoint": NEW.checkpoint}
    assert stage.totals.registry.get_sample_value("nanochat_model_info", model) == 1


async def test_a_checkpoint_that_one_worker_refuses_is_used_by_none(stage: Stage) -> None:
    refusal = NotLoaded(reference="b", code="checkpoint_corrupt", message="SHA-256")
    result = await _swap(stage, Loaded(reference="b", served=NEW), refusal)
    assert isinstance(result, CheckpointCorrupt)
    assert stage.wires[0].control[-1] == Drop()
    assert not any(isinstance(message, Use) for wire in stage.wires for message in wire.control)
    assert stage.pool.served == SERVED


async def test_a_worker_that_dies_in_a_swap_is_not_waited_for_but_a_second_one_was_the_checkpoint(stage: Stage) -> None:
    assert await _swap(stage, Loaded(reference="b", served=NEW), None) is None
    assert stage.pool.served == NEW
    other = Stage(InferenceSettings(), num_workers=2)
    assert isinstance(await _swap(other, None, None), NanochatError)
    assert other.pool.served == SERVED
