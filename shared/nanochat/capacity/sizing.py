"""The target, and the fewest replicas that hold it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nanochat.bench.serving.arrivals import Arrival
from nanochat.bench.serving.figures import percentile
from nanochat.capacity.curves import Curves
from nanochat.capacity.simulator import Run, simulate
from nanochat.errors import InvalidConfig

# A single server with random arrivals queues 1 / (1 - load) times as long as it serves.
_GATEWAY_LOAD = 0.6


@dataclass(frozen=True, kw_only=True)
class Target:
    """For 95 of 100 requests: the first token after `ttft_s` at most, then `tokens_per_second` at least (0: any)."""

    ttft_s: float
    tokens_per_second: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.ttft_s < float("inf"):
            raise InvalidConfig(f"a first token within {self.ttft_s:g} s is no target; give seconds above 0.")
        if not 0 <= self.tokens_per_second < float("inf"):
            raise InvalidConfig(f"{self.tokens_per_second:g} tokens/s is no target; give 0 or more.")


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Of a run, simulated or real. A refused request counts as one whose first token never came."""

    num_replicas: int
    num_requests: int
    num_refused: int
    ttft_p50_s: float
    ttft_p95_s: float
    tokens_per_second_p50: float
    tokens_per_second_p5: float  # 95 of 100 answers stream at least this fast
    output_tokens_per_second: float  # of all requests together
    busy_ratio: float

    def holds(self, target: Target) -> bool:
        return self.ttft_p95_s <= target.ttft_s and self.tokens_per_second_p5 >= target.tokens_per_second


def figures(run: Run, num_replicas: int) -> Figures:
    ttfts = [outcome.ttft_s for outcome in run.outcomes]
    # One token has no rate. Where all are such, no rate is too slow.
    measured = [outcome for outcome in run.outcomes if outcome.is_refused or outcome.num_tokens > 1]
    rates = [outcome.tokens_per_second for outcome in measured] or [float("inf")]
    return Figures(
        num_replicas=num_replicas,
        num_requests=len(run.outcomes),
        num_refused=sum(outcome.is_refused for outcome in run.outcomes),
        ttft_p50_s=percentile(ttfts, 0.5),
        ttft_p95_s=percentile(ttfts, 0.95),
        tokens_per_second_p50=percentile(rates, 0.5),
        tokens_per_second_p5=percentile(rates, 0.05),
        output_tokens_per_second=sum(outcome.num_tokens for outcome in run.outcomes) / run.duration_s,
        busy_ratio=run.busy_ratio,
    )


def gateways(curves: Curves, tokens_per_second: float) -> int | None:
    """How many gateways so many tokens take, each a process on one core; None where its cost is not known.

    The simulation is of replicas alone: with fewer gateways than this, requests wait in them.
    """
    if not curves.gateway_token_s:
        return None
    return max(1, math.ceil(tokens_per_second * curves.gateway_token_s / _GATEWAY_LOAD))


def size(curves: Curves, arrivals: Sequence[Arrival], target: Target, max_replicas: int) -> list[Figures]:
    """Figures of the numbers of replicas that were tried, ascending; the first that holds the target is the answer.

    Doubles until the target is held, then halves the gap. None holds it: all up to `max_replicas` are too few.
    """
    if max_replicas < 1:
        raise InvalidConfig(f"at most {max_replicas} replicas is no bound; give 1 or more.", param="max_replicas")
    tried: dict[int, Figures] = {}

    def holds(num_replicas: int) -> bool:
        tried[num_replicas] = figures(simulate(curves, arrivals, num_replicas), num_replicas)
        return tried[num_replicas].holds(target)

    too_few, enough = 0, 1
    while not holds(enough):
        if enough >= max_replicas:
            return [tried[number] for number in sorted(tried)]
        too_few, enough = enough, min(2 * enough, max_replicas)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if holds(middle):
            enough = middle
        else:
            too_few = middle
    return [tried[number] for number in sorted(tried)]
