"""The same arrivals against a real gateway: each request streams, whatever became of those before it.

Prompts are random token ids, which have the length that was asked for in any tokenizer; the high temperature keeps
answers from ending early. How long they became is in the outcome.
"""

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from nanochat.capacity.arrivals import Arrival
from nanochat.capacity.simulator import Outcome, Run
from nanochat.errors import NotFound, Unauthorized, Unavailable

# Nearly all tokens alike, so that one that ends the answer is rare.
_TEMPERATURE = 2.0
_NUM_SPECIAL_TOKENS = 9
_TIMEOUT = httpx.Timeout(10.0, read=300.0)


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
        headers = {"authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=2000, max_keepalive_connections=100)
        self._client = httpx.AsyncClient(
            base_url=url, headers=headers, timeout=_TIMEOUT, limits=limits, trust_env=False
        )
        self._service: Service | None = None

    async def __aenter__(self) -> "Gateway":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def service(self) -> Service:
        """Raises Unavailable, Unauthorized, or NotFound where no model is served."""
        if self._service is None:
            models, stats = (await self._get("/v1/models"))["data"], await self._get("/stats")
            if not models:
                raise NotFound(f"no model is served at {self.url}; promote one, then measure it.")
            known, workers = models[0]["nanochat"], stats["workers"]
            self._service = Service(
                model=models[0]["id"],
                checkpoint=known["checkpoint"],
                context_length=known["context_length"],
                vocab_size=known["vocab_size"],
                num_parameters=known["num_parameters"],
                num_replicas=stats["total_workers"],
                max_running=min(worker["max_running"] for worker in workers),
                max_waiting=min(worker["max_waiting"] for worker in workers),
            )
        return self._service

    async def replay(self, arrivals: Sequence[Arrival], *, seed: int = 0) -> Run:
        """Send each request at its time, from now on; wait for all answers."""
        await self.service()
        start = asyncio.get_running_loop().time() + 0.05
        answers = [self.ask(arrival, start, seed=1_000_003 * seed + n) for n, arrival in enumerate(arrivals)]
        outcomes = await asyncio.gather(*answers)
        duration_s = asyncio.get_running_loop().time() - start
        return Run(outcomes=list(outcomes), busy_ratio=float("nan"), duration_s=duration_s)

    async def ask(self, arrival: Arrival, start: float, *, seed: int) -> Outcome:
        """One request at its time after `start` (the event loop's clock). One that fails has no first token."""
        loop, service = asyncio.get_running_loop(), await self.service()
        dice = random.Random(seed)
        body = {
            "model": service.model,
            "prompt": [dice.randrange(service.vocab_size - _NUM_SPECIAL_TOKENS) for _ in range(arrival.prompt_tokens)],
            "max_tokens": arrival.answer_tokens,
            "temperature": _TEMPERATURE,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        await asyncio.sleep(max(0.0, start + arrival.time_s - loop.time()))
        outcome = Outcome(arrival=arrival)
        first_s = last_s = None
        try:
            async with self._client.stream("POST", "/v1/completions", json=body) as response:
                async for line in response.aiter_lines():
                    if response.status_code != 200 or not line.startswith("data: {"):
                        continue
                    chunk = json.loads(line.removeprefix("data: "))
                    if chunk.get("choices"):
                        last_s = loop.time() - start
                        first_s = last_s if first_s is None else first_s
                    if chunk.get("usage"):
                        outcome.num_tokens = chunk["usage"]["completion_tokens"]
        except httpx.HTTPError:
            return outcome
        if outcome.num_tokens:
            outcome.first_token_s, outcome.finished_s = first_s, last_s
        return outcome

    async def _get(self, path: str) -> dict[str, Any]:
        try:
            response = await self._client.get(path)
        except httpx.TransportError as exc:
            raise Unavailable(
                f"no answer from {self.url} ({type(exc).__name__}); start the stack, or name its gateway with --url."
            ) from exc
        if response.status_code in (401, 403):
            raise Unauthorized(f"{self.url} asks for a key; set NANOCHAT_API_KEY.")
        if response.status_code != 200:
            raise Unavailable(f"{self.url}{path} answered {response.status_code}: {response.text[:200]}")
        found: dict[str, Any] = response.json()
        return found


def as_they_became(run: Run) -> list[Arrival]:
    """The arrivals of a real run with the lengths that its answers had: what a simulation of it is to be fed."""
    return [
        outcome.arrival.model_copy(update={"answer_tokens": outcome.num_tokens or outcome.arrival.answer_tokens})
        for outcome in run.outcomes
    ]
