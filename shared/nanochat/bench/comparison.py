"""The engine and what it is compared with, at one depth, in one run: the same streams, prompts and answers for each.

Two cases: prompts of their own with prefill included, which services see; and samples of one prompt, where decoding
alone is looked at. Peers that run elsewhere are the caller's to add.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nanochat.bench.decoding import make_engine, measure
from nanochat.bench.machine import product_flops, read_bytes_per_second
from nanochat.bench.plain import measure_plain
from nanochat.bench.random_model import bench_config, random_model
from nanochat.bench.timing import Case, DecodingFigures, Timing, figures
from nanochat.bench.work import Weights, Work
from nanochat.config import GPTConfig
from nanochat.errors import InvalidConfig

PLAIN = "plain PyTorch"


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """Of this machine, measured: the best float32 product and the fastest reading of memory."""

    product_flops: float
    read_bytes_per_second: float

    @classmethod
    def measure(cls) -> "Peaks":
        return cls(product_flops=product_flops(trials=5), read_bytes_per_second=read_bytes_per_second())

    def or_better(self, other: "Peaks") -> "Peaks":
        return Peaks(
            product_flops=max(self.product_flops, other.product_flops),
            read_bytes_per_second=max(self.read_bytes_per_second, other.read_bytes_per_second),
        )


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One engine's times. `weights` are what it reads; for shares of the peaks."""

    name: str
    weights: Weights
    timings: Sequence[Timing]

    def figures(self, config: GPTConfig, case: Case, peaks: Peaks) -> list[DecodingFigures]:
        return figures(
            self.timings,
            case,
            Work(config=config, weights=self.weights),
            product_flops=peaks.product_flops,
            read_bytes_per_second=peaks.read_bytes_per_second,
        )


@dataclass(frozen=True, kw_only=True)
class Measured:
    prompts: list[Subject]
    samples: list[Subject]


def measure_own(
    depth: int,
    weights: Sequence[Weights],
    num_streams: Sequence[int],
    prompts: Case,
    samples: Case,
    num_rounds: int,
    say: Callable[[str], None],
) -> Measured:
    """Weights that the engine lacks are said and left out."""
    config = bench_config(depth)
    max_len = prompts.prompt_tokens + prompts.new_tokens
    found = Measured(prompts=[], samples=[])
    for kind in weights:
        try:
            engine = make_engine(config, kind, max(num_streams), max_len)
        except InvalidConfig as exc:
            say(exc.message)
            continue
        for case, subjects in ((prompts, found.prompts), (samples, found.samples)):
            say(f"depth {depth}: nanochat {kind}, {'samples of one prompt' if case.is_shared else 'prompts'}")
            timings = measure(engine, config.vocab_size, num_streams, case, num_rounds)
            subjects.append(Subject(name=f"nanochat {kind}", weights=kind, timings=timings))
        del engine
    say(f"depth {depth}: {PLAIN}, samples of one prompt")
    timings = measure_plain(random_model(config), num_streams, samples, num_rounds)
    found.samples.append(Subject(name=PLAIN, weights="fp32", timings=timings))
    return found
