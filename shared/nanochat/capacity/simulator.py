"""What would become of each request: replicas that step as the engine does, fed as the gateway feeds them.

A replica seats whoever has waited longest, takes new prompts in as far as the engine's pace allows, and gives every row
whose prompt is in a token, in one step whose length the curves tell; what arrives meanwhile waits for its end. The
gateway gives a request to the replica where it has the fewest open, to up to two others when that one is full, and
refuses it then.
"""

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

from nanochat.bench.serving.arrivals import Arrival
from nanochat.capacity.curves import Curves
from nanochat.engine.pace import MIN_PROMPT_TOKENS, Pace, share

# Settings of inference as they are by default, and the chunk of the CPU's kernels.
MAX_STEP_TOKENS = 1024
MAX_CHUNK = 256


@dataclass(kw_only=True)
class Outcome:
    """Times in seconds from the start. No `first_token_s`: the request was refused, or failed."""

    arrival: Arrival
    first_token_s: float | None = None
    finished_s: float | None = None
    num_tokens: int = 0

    @property
    def is_refused(self) -> bool:
        return self.first_token_s is None

    @property
    def ttft_s(self) -> float:
        return float("inf") if self.first_token_s is None else self.first_token_s - self.arrival.time_s

    @property
    def tokens_per_second(self) -> float:
        """Of the answer once it has begun; endless where it has but one token."""
        if self.first_token_s is None or self.finished_s is None:
            return 0.0
        took_s = self.finished_s - self.first_token_s
        return (self.num_tokens - 1) / took_s if took_s > 0 and self.num_tokens > 1 else float("inf")


@dataclass(kw_only=True)
class Run:
    """All outcomes in order of arrival. `busy_ratio` is the share of the time in which a replica was in a step."""

    outcomes: list[Outcome]
    busy_ratio: float
    duration_s: float


@dataclass(eq=False)
class _Replica:
    waiting: deque[Outcome] = field(default_factory=deque)
    prompts: list[tuple[Outcome, int]] = field(default_factory=list)  # seated, with their tokens still to come
    fresh: list[Outcome] = field(default_factory=list)  # whose prompt is in after the step that runs now
    ends: list[tuple[int, int, Outcome]] = field(default_factory=list)  # heap of (last step, number, row)
    pace: Pace = field(default_factory=lambda: Pace(MAX_STEP_TOKENS))
    context: int = 0  # tokens of all rows that decode
    num_steps: int = 0
    is_running: bool = False
    busy_s: float = 0.0

    @property
    def num_open(self) -> int:
        return len(self.waiting) + len(self.prompts) + len(self.fresh) + len(self.ends)


def simulate(curves: Curves, arrivals: Sequence[Arrival], num_replicas: int) -> Run:
    """Every request's fate. Arrivals are in order of time and fit the context (arrivals.cut_to_context)."""
    simulation = _Simulation(curves, num_replicas)
    outcomes = [Outcome(arrival=arrival) for arrival in arrivals]
    for outcome in outcomes:
        simulation.run_until(outcome.arrival.time_s)
        simulation.arrive(outcome)
    simulation.run_until(float("inf"))
    busy_s = sum(replica.busy_s for replica in simulation.replicas)
    duration_s = max(simulation.now_s, 1e-9)
    return Run(outcomes=outcomes, busy_ratio=busy_s / (num_replicas * duration_s), duration_s=duration_s)


class _Simulation:
    def __init__(self, curves: Curves, num_replicas: int) -> None:
        self._curves = curves
        self.replicas = [_Replica() for _ in range(num_replicas)]
        self._step_ends: list[tuple[float, int, _Replica]] = []  # heap; the number keeps equals apart
        self._number = 0
        self.now_s = 0.0
        self._prefill_s = cache(curves.prefill_s)
        self._decode_line = cache(self._line)

    def run_until(self, time_s: float) -> None:
        while self._step_ends and self._step_ends[0][0] <= time_s:
            self.now_s, _, replica = heapq.heappop(self._step_ends)
            self._end_step(replica)
            self._start_step(replica)
        if time_s < float("inf"):
            self.now_s = time_s

    def arrive(self, outcome: Outcome) -> None:
        self.replicas.append(self.replicas.pop(0))  # equals take turns, as at the gateway
        first, *others = sorted(self.replicas, key=lambda replica: replica.num_open)
        for replica in [first, *others[:2]]:
            if replica.num_open < self._curves.max_running + self._curves.max_waiting:
                replica.waiting.append(outcome)
                if not replica.is_running:
                    self._start_step(replica)
                return

    def _start_step(self, replica: _Replica) -> None:
        took_s = 0.0
        while replica.waiting and len(replica.prompts) + len(replica.ends) < self._curves.max_running:
            outcome = replica.waiting.popleft()
            replica.prompts.append((outcome, outcome.arrival.prompt_tokens))
            took_s += self._curves.request_s
        num_decoding = len(replica.ends)
        replica.is_running = bool(replica.prompts or num_decoding)
        if not replica.is_running:
            return
        num_prompt_tokens = self._take_prompts(replica, num_decoding)
        if num_prompt_tokens:
            took_s += self._prefill_s(num_prompt_tokens)
        if num_decoding:
            base_s, token_s = self._decode_line(num_decoding)
            took_s += base_s + token_s * replica.context / num_decoding
        replica.pace.observe(took_s, num_decoding, num_prompt_tokens)
        replica.busy_s += took_s
        self._number += 1
        heapq.heappush(self._step_ends, (self.now_s + took_s, self._number, replica))

    def _take_prompts(self, replica: _Replica, num_decoding: int) -> int:
        """As the engine does; returns how many tokens. Prompts that are in become fresh."""
        budget = max(replica.pace.budget(num_decoding) - num_decoding, MIN_PROMPT_TOKENS)
        counts = share([left for _, left in replica.prompts], budget, MAX_CHUNK)
        going_on = []
        for (outcome, left), count in zip(replica.prompts, counts, strict=True):
            if count < left:
                going_on.append((outcome, left - count))
            else:
                replica.fresh.append(outcome)
        replica.prompts = going_on
        return sum(counts)

    def _end_step(self, replica: _Replica) -> None:
        replica.context += len(replica.ends)
        for outcome in replica.fresh:
            outcome.first_token_s = self.now_s + self._curves.latency_s
            replica.context += outcome.arrival.prompt_tokens + 1
            self._number += 1
            last_step = replica.num_steps + outcome.arrival.answer_tokens
            heapq.heappush(replica.ends, (last_step, self._number, outcome))
        replica.fresh.clear()
        replica.num_steps += 1
        while replica.ends and replica.ends[0][0] <= replica.num_steps:
            _, _, outcome = heapq.heappop(replica.ends)
            outcome.finished_s = self.now_s + self._curves.latency_s
            outcome.num_tokens = outcome.arrival.answer_tokens
            replica.context -= outcome.arrival.prompt_tokens + outcome.arrival.answer_tokens

    def _line(self, num_rows: int) -> tuple[float, float]:
        """A step's seconds as base + slope * mean context: cheap enough to ask for millions of steps."""
        middle = self._curves.context_length / 2
        low, high = self._curves.decode_s(num_rows, 1), self._curves.decode_s(num_rows, middle)
        slope = max(0.0, (high - low) / max(1.0, middle - 1))
        return low, slope
