"""What a run comes to: latencies as percentiles, rates, errors by kind, and who met a target (goodput)."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from nanochat.bench.serving.client import Answer
from nanochat.bench.serving.load import Run
from nanochat.errors import InvalidConfig

_UNITS_S = {"ms": 0.001, "s": 1.0}


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What a good answer keeps to: its first token, the mean time of each further one (tpot), the longest gap between
    two (itl), its whole time (e2e). None: any."""

    ttft_s: float | None = None
    itl_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Such as `ttft=500ms,itl=100ms`. Raises InvalidConfig."""
        found: dict[str, float] = {}
        for part in filter(None, (one.strip() for one in text.split(","))):
            match = re.fullmatch(r"(ttft|itl|tpot|e2e)=(\d+(?:\.\d+)?)(ms|s)", part)
            if match is None or float(match[2]) == 0:
                raise InvalidConfig(
                    f"{part!r} is no target; give ttft, itl, tpot or e2e with a time, such as ttft=500ms,itl=100ms.",
                    param="goodput",
                )
            found[f"{match[1]}_s"] = float(match[2]) * _UNITS_S[match[3]]
        return cls(**found)

    def are_met(self, answer: Answer) -> bool:
        if not answer.is_good:
            return False
        found = {
            "ttft_s": answer.ttft_s,
            "itl_s": max(answer.gaps_s, default=0.0),
            "tpot_s": answer.token_s or 0.0,
            "e2e_s": answer.e2e_s,
        }
        bounds = {name: bound for name, bound in vars(self).items() if bound is not None}
        return all(found[name] <= bound for name, bound in bounds.items())


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Of a latency in seconds; none at all where nothing was measured."""

    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    max: float | None

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        found = list(values)
        if not found:
            return cls(mean=None, p50=None, p95=None, p99=None, max=None)
        p50, p95, p99 = (percentile(found, ratio) for ratio in (0.5, 0.95, 0.99))
        return cls(mean=math.fsum(found) / len(found), p50=p50, p95=p95, p99=p99, max=max(found))


@dataclass(frozen=True, kw_only=True)
class LoadFigures:
    """Of one run. Latencies are those of good answers, and `itl` of every gap in them alike. Rates count what came
    within the run's time. num_short: good answers with fewer tokens than asked for. good_ratio: of all requests."""

    num_requests: int
    num_errors: int
    errors: dict[str, int]
    num_short: int
    duration_s: float
    request_rate: float
    output_tokens_per_second: float
    prompt_tokens_per_second: float
    cached_tokens: int
    ttft: Spread
    itl: Spread
    tpot: Spread
    e2e: Spread
    good_ratio: float
    good_rate: float


def load_figures(run: Run, targets: Targets) -> LoadFigures:
    good = [answer for answer in run.answers if answer.is_good]
    num_met = sum(targets.are_met(answer) for answer in run.answers)
    duration_s = max(run.duration_s, 1e-9)
    return LoadFigures(
        num_requests=len(run.answers),
        num_errors=len(run.answers) - len(good),
        errors=dict(sorted(Counter(answer.error for answer in run.answers if not answer.is_good).items())),
        num_short=sum(answer.num_tokens < answer.max_tokens for answer in good),
        duration_s=run.duration_s,
        request_rate=len(good) / duration_s,
        output_tokens_per_second=sum(answer.num_tokens for answer in good) / duration_s,
        prompt_tokens_per_second=sum(answer.prompt_tokens for answer in good) / duration_s,
        cached_tokens=sum(answer.cached_tokens for answer in good),
        ttft=Spread.of(answer.ttft_s for answer in good),
        itl=Spread.of(gap for answer in good for gap in answer.gaps_s),
        tpot=Spread.of(answer.token_s for answer in good if answer.token_s is not None),
        e2e=Spread.of(answer.e2e_s for answer in good),
        good_ratio=num_met / max(1, len(run.answers)),
        good_rate=num_met / duration_s,
    )


def percentile(values: Sequence[float], ratio: float) -> float:
    """The smallest value that this share of all does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(ratio * len(ordered)) - 1)]
