"""What is generated, how long it took, and what that is of the machine's peaks. The same for the engine and for peers.

Torch-free: a peer's times come from a process of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from nanochat.bench.work import Work


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is generated. With `is_shared`, the streams are samples of one prompt, which is computed once."""

    prompt_tokens: int = 128
    new_tokens: int = 64
    temperature: float = 0.0
    is_shared: bool = False


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds for num_streams together, medians: prefill_s up to every stream's first token, total_s for all tokens."""

    num_streams: int
    prefill_s: float
    total_s: float

    def tokens_per_second(self, case: Case) -> float:
        """Prefill included."""
        return self.num_streams * case.new_tokens / self.total_s

    def step_s(self, case: Case) -> float:
        return max(1e-9, self.total_s - self.prefill_s) / (case.new_tokens - 1)

    def decode_tokens_per_second(self, case: Case) -> float:
        return self.num_streams / self.step_s(case)


@dataclass(frozen=True, kw_only=True)
class DecodingFigures:
    """read_ratio: bytes that a step must read, by its time, of the measured bandwidth. product_ratio, prefill_ratio:
    FLOPs of a step and of the prompts, likewise, of the measured float32 product."""

    num_streams: int
    tokens_per_second: float
    decode_tokens_per_second: float
    prefill_tokens_per_second: float
    prefill_s: float
    step_ms: float
    read_ratio: float
    product_ratio: float
    prefill_ratio: float


def figures(
    timings: Sequence[Timing], case: Case, work: Work, *, product_flops: float, read_bytes_per_second: float
) -> list[DecodingFigures]:
    """At the mean context of the steps."""
    context = case.prompt_tokens + case.new_tokens / 2
    found = []
    for one in timings:
        num_prompts = 1 if case.is_shared else one.num_streams
        step_s = one.step_s(case)
        found.append(
            DecodingFigures(
                num_streams=one.num_streams,
                tokens_per_second=one.tokens_per_second(case),
                decode_tokens_per_second=one.decode_tokens_per_second(case),
                prefill_tokens_per_second=num_prompts * case.prompt_tokens / one.prefill_s,
                prefill_s=one.prefill_s,
                step_ms=1000 * step_s,
                read_ratio=work.step_bytes(one.num_streams, context) / step_s / read_bytes_per_second,
                product_ratio=work.step_flops(one.num_streams, context) / step_s / product_flops,
                prefill_ratio=work.prefill_flops(num_prompts, case.prompt_tokens) / one.prefill_s / product_flops,
            )
        )
    return found
