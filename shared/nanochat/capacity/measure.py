"""Takes the curves of one replica from outside, through its gateway, so that they hold everything a client waits for.

Decoding: so many streams at once, by the pace of their tokens while all of them run. Prompts: the time to the first
token of one request alone. Meant for a service that nobody else uses meanwhile.
"""

import asyncio
import platform
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

from nanochat.bench.serving.arrivals import Arrival
from nanochat.capacity.curves import Curves, DecodePoint, PrefillPoint, interpolate
from nanochat.capacity.load import Gateway, Service
from nanochat.capacity.simulator import Outcome
from nanochat.cores import usable_cores
from nanochat.errors import Conflict, Unavailable

_SHORTEST_PROMPT = 8
_TURNS = 6


async def measure(gateway: Gateway, *, num_rounds: int, say: Callable[[str], None]) -> Curves:
    """Raises Conflict unless exactly one replica answers; Unavailable where too few answers came."""
    service = await gateway.service()
    if service.num_replicas != 1:
        raise Conflict(
            f"curves are those of one replica, and {service.num_replicas} answer at {gateway.url}; scale to one."
        )
    await _round(gateway, service, 1, _SHORTEST_PROMPT)  # the first of all finds nothing ready
    decode = []
    for context in _contexts(service):
        for batch_size in _doubling(1, service.max_running):
            found = [await _step_s(gateway, service, batch_size, context) for _ in range(num_rounds)]
            decode.append(DecodePoint(batch_size=batch_size, context=context, step_s=median(found)))
            say(f"{batch_size} rows of {context} tokens: {1000 * decode[-1].step_s:.2f} ms a step")
    lengths = _doubling(_SHORTEST_PROMPT, service.context_length - 2)
    firsts = [(n, await _first_token_s(gateway, n, num_rounds)) for n in lengths]
    one_row = sorted((point.context, point.step_s) for point in decode if point.batch_size == 1)
    shortest_step_s = interpolate(one_row, _SHORTEST_PROMPT)  # no prompt takes less than one token does
    latency_s = max(0.0, min(first_s for _, first_s in firsts) - shortest_step_s)
    prefill = [PrefillPoint(num_tokens=n, step_s=max(shortest_step_s, first_s - latency_s)) for n, first_s in firsts]
    for point in prefill:
        say(f"prompt of {point.num_tokens} tokens: {1000 * point.step_s:.2f} ms")
    curves = Curves(
        model=service.model,
        checkpoint=service.checkpoint,
        num_parameters=service.num_parameters,
        machine=f"{platform.processor() or platform.machine()}, {usable_cores()} cores",
        context_length=service.context_length,
        max_running=service.max_running,
        max_waiting=service.max_waiting,
        latency_s=latency_s,
        decode=decode,
        prefill=prefill,
    )
    cpu_s = await gateway.cpu_s()
    turns = [await _turns(gateway, curves) for _ in range(num_rounds)]
    used_s = ((await gateway.cpu_s() or 0.0) - cpu_s) if cpu_s is not None else 0.0
    request_s = median([one.lost_s for one in turns])
    gateway_token_s = max(0.0, used_s) / sum(one.num_tokens for one in turns)
    say(f"beside that, a request: {1000 * latency_s:.2f} ms until it begins, {1000 * request_s:.2f} ms of the engine's")
    say(f"in the gateway a token: {1000 * gateway_token_s:.2f} ms of a core")
    return curves.model_copy(update={"request_s": request_s, "gateway_token_s": gateway_token_s})


async def _step_s(gateway: Gateway, service: Service, batch_size: int, context: int) -> float:
    """Seconds between two tokens of a stream while so many run. Tries again where answers ended early."""
    for _ in range(5):
        outcomes = await _round(gateway, service, batch_size, context)
        paces = [1 / outcome.tokens_per_second for outcome in outcomes if outcome.num_tokens > 4]
        if len(paces) == batch_size:
            return median(paces)
    raise Unavailable(f"{batch_size} answers at once did not come; is the service used by others, or too small?")


async def _round(gateway: Gateway, service: Service, batch_size: int, context: int) -> list[Outcome]:
    """So many answers at once, around this mean context."""
    num_new = max(8, min(64, 2 * (context - 1), service.context_length - context))
    prompt_tokens = max(1, context - num_new // 2)
    arrivals = [Arrival(time_s=0.0, prompt_tokens=prompt_tokens, answer_tokens=num_new)] * batch_size
    return (await gateway.replay(arrivals)).outcomes


async def _first_token_s(gateway: Gateway, num_tokens: int, num_rounds: int) -> float:
    arrival = Arrival(time_s=0.0, prompt_tokens=num_tokens, answer_tokens=2)
    found = []
    for _ in range(2 * num_rounds):
        outcome = await gateway.ask(arrival)
        if not outcome.is_refused:
            found.append(outcome.ttft_s)
    if not found:
        raise Unavailable(f"no prompt of {num_tokens} tokens was answered at {gateway.url}; see the gateway's log.")
    return median(found)


class _Turns(NamedTuple):
    lost_s: float
    num_tokens: float


async def _turns(gateway: Gateway, curves: Curves) -> _Turns:
    """What is lost a request where they follow each other in every slot: one's turn is its own latency and steps, and
    in them the prompts and the overhead of all."""
    arrival = Arrival(time_s=0.0, prompt_tokens=min(32, curves.context_length // 4), answer_tokens=16)

    async def client() -> list[Outcome]:
        return [await gateway.ask(arrival) for _ in range(_TURNS)]

    began = asyncio.get_running_loop().time()
    found = await asyncio.gather(*(client() for _ in range(curves.max_running)))
    turn_s = (asyncio.get_running_loop().time() - began) / _TURNS
    num_new = sum(outcome.num_tokens for outcomes in found for outcome in outcomes) / (_TURNS * curves.max_running)
    steps_s = num_new * curves.decode_s(curves.max_running, arrival.prompt_tokens + num_new / 2)
    lost_s = (turn_s - curves.latency_s - steps_s) / curves.max_running
    num_tokens = max(1.0, num_new * _TURNS * curves.max_running)
    return _Turns(max(0.0, lost_s - curves.prefill_s(arrival.prompt_tokens)), num_tokens)


def _contexts(service: Service) -> list[int]:
    """Two of them: what attention costs grows with the context, in a line."""
    short = min(40, service.context_length // 4)
    return [short, max(short + 1, 3 * service.context_length // 4)]


def _doubling(first: int, last: int) -> list[int]:
    """first, twice as much, ... and the last itself."""
    found = []
    while first < last:
        found.append(first)
        first *= 2
    return [*found, last]
