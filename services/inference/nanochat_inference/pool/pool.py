"""All workers of a replica: who is given which request, what becomes of it when a worker is lost, and swaps.

Requests wait here, first come, first served, until a worker has room; there is a bound on their choices and on their
tokens. What a lost worker had begun to answer ends in an error; what it had not goes to another one, or waits for the
next; so it is with a step that failed. A request belongs to the model that its worker uses when it is given: an older
model ends what it has begun.
"""

import asyncio
import itertools
import logging
from bisect import insort
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat.errors import InvalidRequest, NanochatError, Unavailable
from nanochat.protocol.generate import GenerateRequest, ServedModel
from nanochat_inference.pool.choice import Choice, beginnings
from nanochat_inference.pool.estimate import Estimate, prompt_bytes
from nanochat_inference.pool.flight import Flight
from nanochat_inference.pool.supervisor import Supervisor
from nanochat_inference.pool.totals import Totals
from nanochat_inference.pool.worker import Worker, WorkerLost
from nanochat_inference.settings import InferenceSettings

log = logging.getLogger(__name__)

# A request that has lost so many workers, or failed on them, may well be why.
MAX_ATTEMPTS = 4
# A worker that ends while it loads may have been killed by somebody; the second one was the checkpoint.
_MAX_LOST_LOADING = 2
_MAX_BEAT_INTERVAL_S = 1.0
_SCRAPE_TIMEOUT_S = 1.0


@dataclass(frozen=True)
class Chosen:
    """The checkpoint that new requests get."""

    reference: str
    folder: Path
    served: ServedModel


class Pool:
    """For the event loop alone."""

    def __init__(self, workers: list[InferenceSettings], totals: Totals) -> None:
        """`workers` are the settings of each (devices.py)."""
        self._settings = settings = workers[0]
        self.capacity = settings.max_running * len(workers) + settings.max_waiting
        self._totals = totals
        self._estimate = Estimate()
        self._choice = Choice()
        self._numbers = itertools.count(1)
        self._flights: dict[int, Flight] = {}  # all that are open
        self._pending: deque[Flight] = deque()  # those that no worker has
        self._chosen: Chosen | None = None
        self._changed = asyncio.Event()  # a worker came or went
        beat_interval_s = min(_MAX_BEAT_INTERVAL_S, settings.worker_timeout_s / 5)
        self._workers = [
            Worker(
                index,
                each,
                capacity=self.capacity,
                beat_interval_s=beat_interval_s,
                on_ended=self._ended,
                on_accepted=self._accepted,
                on_returned=self._returned,
            )
            for index, each in enumerate(workers)
        ]
        self._supervisors = [
            Supervisor(worker, self, timeout_s=settings.worker_timeout_s, beat_interval_s=beat_interval_s)
            for worker in self._workers
        ]
        self._tasks: list[asyncio.Task[None]] = []
        self._is_stopping = False

    def start(self) -> None:
        self._tasks = [asyncio.create_task(supervisor.run()) for supervisor in self._supervisors]

    async def stop(self) -> None:
        """End all workers; requests still open get an error, and so does a swap."""
        self._is_stopping = True
        self._changed.set()
        self.abort_all(Unavailable("the server is stopping; try again."))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # What it is doing.

    @property
    def served(self) -> ServedModel | None:
        """What new requests get; None before the first checkpoint."""
        return self._chosen.served if self._chosen is not None else None

    @property
    def num_open(self) -> int:
        """Choices that were accepted and have not ended."""
        return sum(flight.num_open for flight in self._flights.values())

    @property
    def num_waiting_tokens(self) -> int:
        """Of requests that have not got their first token, prompts and answers, as far as can be told."""
        return sum(flight.tokens for flight in self._flights.values() if not flight.has_started)

    def unready_reasons(self) -> list[str]:
        """Why no worker can answer now; empty where one can."""
        if any(worker.is_ready for worker in self._workers):
            return []
        return [f"worker {worker.index} ({worker.device}): {worker.status}" for worker in self._workers]

    def stats(self) -> dict[str, Any]:
        """Load by worker, in the shape of the seed's /stats, and more."""
        num_running = self._settings.max_running
        return {
            "total_workers": len(self._workers),
            "available_workers": sum(worker.is_ready and worker.num_open < num_running for worker in self._workers),
            "busy_workers": sum(worker.num_open > 0 for worker in self._workers),
            "workers": [
                {
                    "gpu_id": worker.index,
                    "device": worker.device,
                    "checkpoint": worker.served.checkpoint if worker.served is not None else None,
                    "is_ready": worker.is_ready,
                    "status": worker.status,
                    "num_open": worker.num_open,
                    "num_tokens_open": worker.tokens_left,
                    "num_restarts": worker.num_restarts,
                    "max_running": num_running,
                    "max_waiting": self._settings.max_waiting,
                }
                for worker in self._workers
            ],
            "num_waiting": sum(flight.num_open for flight in self._pending),
        }

    async def measure(self) -> None:
        """Bring the totals up to date with every worker that answers in time."""
        up = [worker for worker in self._workers if worker.is_up]
        await asyncio.gather(*(worker.measure(_SCRAPE_TIMEOUT_S) for worker in up))
        for worker in up:
            if worker.is_up:  # one that was lost meanwhile has been counted
                self._totals.take(worker.index, worker.metrics)
        self._totals.num_pending = sum(flight.num_open for flight in self._pending)

    # Requests.

    def submit(self, asked: GenerateRequest, body: bytes) -> Flight:
        """Queue a request; its pieces follow. Raises Unavailable where the queue is full, or where no worker lives long
        enough; InvalidRequest for more choices than there can ever be."""
        tokens = self._estimate.tokens(asked)
        self._admit(asked.n, tokens)
        flight = Flight(
            next(self._numbers),
            body,
            num_choices=asked.n,
            prompt_bytes=prompt_bytes(asked),
            tokens=tokens,
            beginnings=beginnings(asked) if len(self._workers) > 1 else [],
        )
        self._flights[flight.number] = flight
        self._pending.append(flight)
        self._dispatch()
        return flight

    def cancel(self, flight: Flight) -> None:
        """Nobody waits for it any more. Nothing happens to one that has ended."""
        if self._flights.pop(flight.number, None) is None:
            return
        if flight in self._pending:
            self._pending.remove(flight)
            self._count(flight, "abort")
        for worker in self._workers:
            worker.take_back(flight)
        self._dispatch()

    def abort_all(self, reason: Unavailable) -> None:
        """End every request with this error."""
        for flight in list(self._flights.values()):
            flight.fail(reason)
            self.cancel(flight)

    def _admit(self, num_choices: int, tokens: int) -> None:
        if num_choices > self.capacity:
            raise InvalidRequest(f"n is {num_choices}; this server holds {self.capacity} choices at most.", param="n")
        if self.num_open + num_choices > self.capacity:
            raise Unavailable(
                f"all {self.capacity} places are taken by requests that run or wait; try again shortly.",
                retry_after_s=1,
            )
        limit, waiting = self._settings.max_waiting_tokens, self.num_waiting_tokens
        if limit and waiting and waiting + tokens > limit:
            raise Unavailable(
                f"about {waiting} tokens wait to be computed and this request adds {tokens}, over the {limit} that may "
                "wait; try again shortly, or with a shorter prompt.",
                retry_after_s=2,
            )
        self._raise_if_hopeless()

    def _raise_if_hopeless(self) -> None:
        if all(supervisor.is_hopeless for supervisor in self._supervisors) and (reasons := self.unready_reasons()):
            raise Unavailable(f"no worker stays alive: {'; '.join(reasons)}", retry_after_s=5)

    def _dispatch(self) -> None:
        """Give what waits to workers that have room."""
        while self._pending and (able := [worker for worker in self._workers if worker.is_ready and worker.has_room]):
            flight = self._pending.popleft()
            others = [worker for worker in able if worker.index != flight.failed_on]
            self._choice.pick(others or able, flight.beginnings).give(flight)

    def _accepted(self, flight: Flight, prompt_tokens: int) -> None:
        self._estimate.learn_prompt(flight.prompt_bytes, prompt_tokens)

    def _ended(self, flight: Flight) -> None:
        """A choice of it has, or all."""
        is_over = not any(flight.number in worker.flights for worker in self._workers)
        if is_over and self._flights.pop(flight.number, None) is not None and flight.has_started:
            self._estimate.learn_answer(flight.num_sampled // flight.num_choices)
        self._dispatch()

    def _returned(self, flight: Flight) -> None:
        """A step failed with it."""
        is_retried = self._retry(flight)
        log.warning("request_returned", extra={"worker": flight.failed_on, "is_retried": is_retried})
        self._dispatch()

    def _retry(self, flight: Flight) -> bool:
        """A worker has not answered it to the end. Once something was said, or too often, that is an error: False."""
        if flight.has_started or flight.num_attempts >= MAX_ATTEMPTS:
            self._fail(flight, _loss(flight))
            return False
        insort(self._pending, flight, key=lambda each: each.number)
        return True

    def _count(self, flight: Flight, reason: str) -> None:
        self._totals.add("nanochat_request_success_total", flight.num_open, finished_reason=reason)

    # Workers that come and go.

    async def bring_up(self, worker: Worker) -> None:
        while (chosen := self._chosen) is not None and worker.reference != chosen.reference:
            worker.status = f"it loads {chosen.reference}"
            await worker.load(chosen.reference, chosen.folder)
            worker.use()
        if worker.is_ready:
            log.info("worker_ready", extra={"worker": worker.index, "device": worker.device})
        self._changed.set()
        self._dispatch()

    def lost(self, worker: Worker) -> None:
        flights, worker.flights = list(worker.flights.values()), {}
        self._totals.take(worker.index, worker.metrics)
        self._totals.lose(worker.index)
        worker.metrics = []
        self._totals.add("nanochat_worker_restarts_total", 1)
        self._choice.forget(worker.index)
        num_retried = sum(self._retry(flight) for flight in flights)
        if flights:
            num_failed = len(flights) - num_retried
            log.warning(
                "requests_lost", extra={"worker": worker.index, "num_failed": num_failed, "num_retried": num_retried}
            )
        try:
            self._raise_if_hopeless()
        except Unavailable as exc:
            for flight in list(self._pending):
                self._fail(flight, exc)
            self._pending.clear()
        self._changed.set()
        self._dispatch()

    def _fail(self, flight: Flight, error: NanochatError) -> None:
        self._count(flight, "error")
        self._flights.pop(flight.number, None)
        flight.fail(error)

    # The model.

    async def serve(self, reference: str, folder: Path) -> None:
        """Load a checkpoint in every worker, beside the one in service; then all of them switch at once.

        Raises CheckpointCorrupt and the like, with everything as it was. Workers that are being started when it begins
        are not waited for, unless there are no others: they come up with what is in service then.
        """
        num_lost = 0
        try:
            while unready := await self._without(reference):
                results = await asyncio.gather(
                    *(worker.load(reference, folder) for worker in unready), return_exceptions=True
                )
                for error in (result for result in results if isinstance(result, BaseException)):
                    num_lost += isinstance(error, WorkerLost)
                    if num_lost >= _MAX_LOST_LOADING or not isinstance(error, WorkerLost):
                        raise error
        except BaseException:
            for worker in self._workers:
                if worker.is_up and worker.has_loaded(reference):
                    worker.drop()
            raise
        loaded = [worker for worker in self._workers if worker.is_up and worker.has_loaded(reference)]
        for worker in loaded:
            worker.use()
        served = loaded[0].served
        assert served is not None
        self._chosen = Chosen(reference, folder, served)
        self._totals.set_model(served.model, served.checkpoint)
        self._dispatch()

    async def _without(self, reference: str) -> list[Worker]:
        """Workers on what is in service that have not loaded this yet. Waits until there is one, or one that has.

        Raises Unavailable once no worker will come any more.
        """
        current = self._chosen.reference if self._chosen is not None else None
        while True:
            ours = [worker for worker in self._workers if worker.is_up and worker.reference == current]
            if ours:
                return [worker for worker in ours if not worker.has_loaded(reference)]
            if self._is_stopping:
                raise Unavailable("the server is stopping; no checkpoint is loaded any more.")
            self._changed.clear()
            await self._changed.wait()


def _loss(flight: Flight) -> Unavailable:
    if flight.has_started:
        return Unavailable("the worker that wrote this answer was lost; ask again.", retry_after_s=1)
    return Unavailable(
        f"{flight.num_attempts} times a worker was lost or failed with this request; it is not tried again."
    )
