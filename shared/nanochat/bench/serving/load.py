"""Many requests: so many at once, each followed by the next (closed loop), or at random times, whatever became of those
before (open loop). Bounded in number and in time; what is under way when the time is over is waited for, as long as a
single request may take.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from nanochat.bench.serving.arrivals import Arrival
from nanochat.bench.serving.client import Answer

Ask = Callable[[int], Awaitable[Answer]]


@dataclass(frozen=True, kw_only=True)
class Run:
    """Every answer, in the order of sending, and the seconds from the first sending to the last end."""

    answers: list[Answer]
    duration_s: float


async def closed_loop(ask: Ask, *, concurrency: int, num_requests: int, duration_s: float = float("inf")) -> Run:
    """`ask` gets a request's number. Begins no request after duration_s."""
    loop = asyncio.get_running_loop()
    numbers = itertools.count()
    start = loop.time()
    answers: list[Answer] = []

    async def client() -> None:
        while loop.time() - start < duration_s and (number := next(numbers)) < num_requests:
            answers.append(await ask(number))

    async with asyncio.TaskGroup() as group:
        for _ in range(min(concurrency, num_requests)):
            group.create_task(client())
    return Run(answers=sorted(answers, key=lambda answer: answer.sent_s), duration_s=loop.time() - start)


async def open_loop(ask: Ask, arrivals: Sequence[Arrival], *, duration_s: float = float("inf")) -> Run:
    """Each request at its time from now on, those after duration_s left out."""
    loop = asyncio.get_running_loop()
    start = loop.time()

    async def client(number: int, arrival: Arrival) -> Answer:
        await asyncio.sleep(max(0.0, start + arrival.time_s - loop.time()))
        return await ask(number)

    kept = [arrival for arrival in arrivals if arrival.time_s < duration_s]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(client(number, arrival)) for number, arrival in enumerate(kept)]
    return Run(answers=[task.result() for task in tasks], duration_s=loop.time() - start)
