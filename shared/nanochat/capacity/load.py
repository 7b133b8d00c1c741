"""The same arrivals against a real gateway: each request streams, whatever became of those before it.

Prompts are random token ids, which have the length that was asked for in any tokenizer; the high temperature keeps
answers from ending early. How long they became is in the outcome. One request's course is bench/serving/client.py's.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from prometheus_client.parser import text_string_to_metric_families

from nanochat.bench.serving.arrivals import Arrival
from nanochat.bench.serving.client import Answer, Dialect, Server, draw
from nanochat.bench.serving.load import open_loop
from nanochat.capacity.simulator import Outcome, Run
from nanochat.errors import NotFound
from nanochat.tokenizer.special import SPECIAL_TOKENS

# Nearly all tokens alike, so that one that ends the answer is rare.
_TEMPERATURE = 2.0


@dataclass(frozen=True, kw_only=True)
class Service:
    """What answers: one model, with these limits on each of its replicas."""

    model: str
    checkpoint: str
    context_length: int
    vocab_size: int
    num_parameters: int
    num_replicas: int
    max_running: int
    max_waiting: int


class Gateway:
    """`async with Gateway(url, key) as gateway`."""

    def __init__(self, url: str, key: str = "") -> None:
        self.url = url
        self._server = Server(url, key=key)
        self._service: Service | None = None
        # No two prompts of this or of an earlier run begin alike: a replica finds again what it has seen.
        self._seeds = (f"{id(self)} {time.time_ns()} {number}" for number in count())

    async def __aenter__(self) -> "Gateway":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.__aexit__()

    async def service(self) -> Service:
        """Raises Unavailable, Unauthorized, or NotFound where no model is served."""
        if self._service is None:
            model, stats = await self._server.listed(), await self._server.get("/stats")
            if "nanochat" not in model:
                raise NotFound(f"{self.url} serves {model['id']!r}, but not as this project's gateway; name that one.")
            known, workers = model["nanochat"], stats["workers"]
            self._service = Service(
                model=model["id"],
                checkpoint=known["checkpoint"],
                context_length=known["context_length"],
                vocab_size=known["vocab_size"],
                num_parameters=known["num_parameters"],
                num_replicas=stats["total_workers"],
                max_running=min(worker["max_running"] for worker in workers),
                max_waiting=min(worker["max_waiting"] for worker in workers),
            )
        return self._service

    async def cpu_s(self) -> float | None:
        """CPU seconds that the gateway's process has used; None where it does not tell (systems other than Linux)."""
        for family in text_string_to_metric_families(await self._server.get_text("/metrics")):
            if family.name == "process_cpu_seconds":
                return float(family.samples[0].value)
        return None

    async def replay(self, arrivals: Sequence[Arrival]) -> Run:
        """Send each request at its time, from now on; wait for all answers."""
        await self.service()
        outcomes: dict[int, Outcome] = {}

        async def ask(number: int) -> Answer:
            answer = await self._ask(arrivals[number])
            outcomes[number] = _outcome(arrivals[number], answer)
            return answer

        run = await open_loop(ask, arrivals)
        found = [outcomes[number] for number in range(len(arrivals))]
        return Run(outcomes=found, busy_ratio=float("nan"), duration_s=run.duration_s)

    async def ask(self, arrival: Arrival) -> Outcome:
        """One request now. One that fails has no first token."""
        return _outcome(arrival, await self._ask(arrival))

    async def _ask(self, arrival: Arrival) -> Answer:
        service = await self.service()
        dialect = Dialect(num_ids=service.vocab_size - len(SPECIAL_TOKENS), temperature=_TEMPERATURE)
        prompt = draw(dialect, arrival.prompt_tokens, seed=next(self._seeds))
        return await self._server.ask(dialect, prompt, max_tokens=arrival.answer_tokens)


def _outcome(arrival: Arrival, answer: Answer) -> Outcome:
    """As though it had been sent at the arrival's very time."""
    if not answer.is_good:
        return Outcome(arrival=arrival)
    return Outcome(
        arrival=arrival,
        first_token_s=arrival.time_s + answer.ttft_s,
        finished_s=arrival.time_s + answer.chunks_s[-1] - answer.sent_s,
        num_tokens=answer.num_tokens,
    )


def as_they_became(run: Run) -> list[Arrival]:
    """The arrivals of a real run with the lengths that its answers had: what a simulation of it is to be fed."""
    return [
        outcome.arrival.model_copy(update={"answer_tokens": outcome.num_tokens or outcome.arrival.answer_tokens})
        for outcome in run.outcomes
    ]
