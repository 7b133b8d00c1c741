"""`nanochat bench engine`: the offline engine beside the machine's peaks and, where it is installed, beside vLLM."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nanochat.bench import report
from nanochat.bench.serving.client import Dialect, Server
from nanochat.bench.serving.figures import Targets
from nanochat.bench.serving.sweep import Level, Shape, sweep
from nanochat.bench.timing import Case, DecodingFigures
from nanochat.bench.work import Weights
from nanochat.cli.llama_cpp import LLAMA_WEIGHTS, serve_llama_cpp
from nanochat.cli.settings import CliSettings
from nanochat.cli.temporary_service import random_service
from nanochat.cli.terminal import print_table, say
from nanochat.cli.vllm import VLLM, Sizes
from nanochat.config import GPTConfig
from nanochat.cores import usable_cores
from nanochat.errors import InvalidConfig

if TYPE_CHECKING:  # it loads torch, which the command line starts without
    from nanochat.bench.comparison import Peaks, Subject

_WEIGHTS = ("fp32", "int8")
OWN = "nanochat "  # how the names of our own subjects begin (bench/comparison.py)


@dataclass(kw_only=True)
class Depth:
    """What was measured at one depth. Shares of the peaks are taken at the end, when those are known."""

    depth: int
    config: GPTConfig
    prompts: "list[Subject]"
    samples: "list[Subject]"
    http: dict[str, list[Level]] = field(default_factory=dict)
    prompts_figures: dict[str, list[DecodingFigures]] = field(default_factory=dict)
    samples_figures: dict[str, list[DecodingFigures]] = field(default_factory=dict)

    def take_shares(self, case: Case, peaks: "Peaks") -> None:
        shared = replace(case, is_shared=True)
        self.prompts_figures = {one.name: one.figures(self.config, case, peaks) for one in self.prompts}
        self.samples_figures = {one.name: one.figures(self.config, shared, peaks) for one in self.samples}

    def as_report(self) -> dict[str, Any]:
        return {
            "depth": self.depth,
            "config": self.config,
            "prompts": self.prompts_figures,
            "samples": self.samples_figures,
            "http": self.http,
        }


def engine(
    depth: Annotated[str, typer.Option(help="Layers; 64 channels each, heads of 64.")] = "4,12",
    streams: Annotated[str, typer.Option(help="Prompts generated side by side.")] = "1,4,16,32",
    weights: Annotated[str, typer.Option(help="What the matrices are kept in: fp32, int8.")] = "fp32,int8",
    prompt_tokens: Annotated[int, typer.Option(min=1)] = 128,
    new_tokens: Annotated[int, typer.Option(min=2, help="Of each answer; none ends earlier.")] = 64,
    temperature: Annotated[float, typer.Option(min=0, max=1, help="0: greedy.")] = 0.0,
    rounds: Annotated[int, typer.Option(min=1, help="The median counts; a first round more is not counted.")] = 3,
    vllm_python: Annotated[
        Path | None, typer.Option(help="Python of an environment with vLLM: measured in the same run.")
    ] = None,
    llama_python: Annotated[
        Path | None, typer.Option(help="The same with xllamacpp and gguf: llama.cpp is measured over HTTP.")
    ] = None,
    http: Annotated[bool, typer.Option("--http", help="The services over HTTP too, and the peers'.")] = False,
) -> None:
    """Measure the engine: tokens a second, first tokens, and shares of the machine's bandwidth and matmul peak."""
    numbers, counts = _numbers("depth", depth), _numbers("streams", streams)
    kinds: list[Weights] = _kinds(weights)
    if vllm_python is not None:
        VLLM(vllm_python, Path())  # before minutes are spent
    if llama_python is not None and not http:
        raise InvalidConfig("llama.cpp is measured over HTTP alone; add --http.", param="http")

    # As jobs run: threads that spin without end meet others' work with a hundredth of their speed. Read as torch loads.
    os.environ["GOMP_SPINCOUNT"] = "30000"
    import torch

    from nanochat.bench.comparison import Peaks
    from nanochat.bench.machine import OthersWork, describe

    torch.set_num_threads(usable_cores())  # whatever OMP_NUM_THREADS says: the machine is measured, not a setting
    say("Measuring: minutes on idle cores. Other work spoils the figures.")
    case = Case(prompt_tokens=prompt_tokens, new_tokens=new_tokens, temperature=temperature)
    others, peaks, measured = OthersWork(), Peaks.measure(), []
    for number in numbers:
        measured.append(_measure(number, kinds, counts, case, rounds, vllm_python))
        if http:
            measured[-1].http = asyncio.run(_over_http(measured[-1], counts, case, vllm_python, llama_python))
        peaks = peaks.or_better(Peaks.measure())
    for one in measured:
        one.take_shares(case, peaks)
    _print(measured, peaks)
    say(f"Others took {others.cores:.2f} of {usable_cores()} cores meanwhile.")
    values = {
        "machine": describe(),
        "peaks": peaks,
        "load_average": others.load_average,
        "others_cores": others.cores,
        "case": case,
        "num_rounds": rounds,
        "depths": [one.as_report() for one in measured],
    }
    for path in report.write(CliSettings.load().home_dir / "bench", "engine", values):
        say(f"Written to {path}")


def _measure(
    depth: int, weights: Sequence[Weights], counts: Sequence[int], case: Case, rounds: int, vllm_python: Path | None
) -> Depth:
    from nanochat.bench.comparison import Subject, measure_own
    from nanochat.bench.random_model import bench_config

    config = bench_config(depth)
    own = measure_own(depth, weights, counts, case, replace(case, is_shared=True), rounds, say)
    if vllm_python is not None:
        say(f"depth {depth}: vLLM, prompts")
        with tempfile.TemporaryDirectory(prefix="nanochat-bench-") as folder:
            peer = VLLM(vllm_python, Path(folder))
            version, timings = asyncio.run(peer.measure(_vllm_sizes(config, case, counts, rounds)))
        own.prompts.append(Subject(name=f"vLLM {version}", weights="fp32", timings=timings))
    return Depth(depth=depth, config=config, prompts=own.prompts, samples=own.samples)


async def _over_http(
    measured: Depth, counts: Sequence[int], case: Case, vllm_python: Path | None, llama_python: Path | None
) -> dict[str, list[Level]]:
    """Clients in this process, which take the same share of the cores from each server; one server at a time."""
    sizes = _vllm_sizes(measured.config, case, counts, rounds=1)

    @asynccontextmanager
    async def own(weights: Weights) -> AsyncIterator[str]:
        # Whatever int8 costs random weights: it is speed that is measured.
        chosen = {"NANOCHAT_INFERENCE_PRECISION": weights, "NANOCHAT_INFERENCE_INT8_MAX_COST_RATIO": "0"}
        async with random_service(
            depth=measured.depth, max_running=max(counts), sequence_len=512, environment=chosen
        ) as service:
            yield service.url

    with tempfile.TemporaryDirectory(prefix="nanochat-bench-") as name:
        folder = Path(name)
        servers: dict[str, Callable[[], AbstractAsyncContextManager[str]]] = {}
        for subject in measured.prompts:
            if subject.name.startswith(OWN):
                servers[subject.name] = partial(own, subject.weights)
        if llama_python is not None:
            for kind in LLAMA_WEIGHTS:
                servers[f"llama.cpp {kind}"] = partial(serve_llama_cpp, llama_python, folder, sizes, kind)
        if vllm_python is not None:
            servers["vLLM"] = partial(VLLM(vllm_python, folder).serve, sizes)
        found = {}
        for server, started in servers.items():
            say(f"depth {measured.depth}: {server} over HTTP")
            async with started() as url:
                found[server] = await _levels(url, counts, case)
    return found


async def _levels(url: str, counts: Sequence[int], case: Case) -> list[Level]:
    levels = []
    async with Server(url, timeout_s=300.0) as server:
        dialect: Dialect = await server.dialect(num_ids=4000, temperature=case.temperature)
        for count in counts:
            shape = Shape(
                prompt_tokens=str(case.prompt_tokens),
                max_tokens=str(case.new_tokens),
                num_requests=max(6, 2 * count),
                duration_s=600.0,
            )
            levels += await sweep(server, dialect, shape, "concurrency", [count], Targets())
    return levels


def _vllm_sizes(config: GPTConfig, case: Case, counts: Sequence[int], rounds: int) -> Sizes:
    return Sizes(
        n_layer=config.n_layer,
        n_embd=config.n_embd,
        n_head=config.n_head,
        vocab_size=config.vocab_size,
        max_model_len=case.prompt_tokens + case.new_tokens,
        prompt_tokens=case.prompt_tokens,
        new_tokens=case.new_tokens,
        streams=tuple(counts),
        num_rounds=rounds,
        temperature=case.temperature,
    )


def _print(found: Sequence[Depth], peaks: "Peaks") -> None:
    say(
        f"Peaks: {peaks.product_flops / 1e9:.0f} GFLOP/s (the best product of 2048 x 2048), "
        f"{peaks.read_bytes_per_second / 1e9:.1f} GB/s (the fastest sum of 1 GiB)."
    )
    for one in found:
        say(f"\nDepth {one.depth}, prompts of their own, prefill included:")
        _print_group(one.prompts_figures, "tokens_per_second")
        say(f"\nDepth {one.depth}, samples of one prompt, decoding alone:")
        _print_group(one.samples_figures, "decode_tokens_per_second")
        if one.http:
            say(f"\nDepth {one.depth}, over HTTP:")
            _print_http(one.http)


def _print_group(group: dict[str, list[DecodingFigures]], rate: str) -> None:
    """Ratios to the last of the group."""
    headings = ("engine", "streams", "tokens/s", "ratio", "prefill ms", "tok/s", "step ms", "read", "matmul")
    rows = []
    for index, peer in enumerate(list(group.values())[-1]):
        for name, figures in group.items():
            one = figures[index]
            rows.append(
                (
                    name,
                    str(one.num_streams),
                    f"{getattr(one, rate):.1f}",
                    f"{getattr(one, rate) / getattr(peer, rate):.2f}",
                    f"{1000 * one.prefill_s:.1f}",
                    f"{one.prefill_tokens_per_second:.0f}",
                    f"{one.step_ms:.2f}",
                    f"{one.read_ratio:.0%}",
                    f"{one.product_ratio:.0%}",
                )
            )
    print_table(headings, rows, empty="nothing was measured")


def _print_http(group: dict[str, list[Level]]) -> None:
    rows = []
    for index, peer in enumerate(list(group.values())[-1]):
        for name, levels in group.items():
            one = levels[index].figures
            ratio = one.output_tokens_per_second / max(1e-9, peer.figures.output_tokens_per_second)
            rows.append(
                (
                    name,
                    f"{levels[index].load:g}",
                    f"{one.output_tokens_per_second:.1f}",
                    f"{ratio:.2f}",
                    "-" if one.ttft.p50 is None else f"{1000 * one.ttft.p50:.1f}",
                    "-" if one.itl.p50 is None else f"{1000 * one.itl.p50:.2f}",
                    str(one.num_errors + one.num_short),
                )
            )
    print_table(("server", "streams", "tokens/s", "ratio", "TTFT ms", "ITL ms", "failed"), rows, empty="")


def _numbers(name: str, text: str) -> list[int]:
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = [0]
    if not all(0 < number <= 1024 for number in found):
        raise InvalidConfig(f"--{name} {text!r} is no list of numbers; give such as 1,4,16.", param=name)
    return found


def _kinds(text: str) -> Any:
    found = [part.strip() for part in text.split(",")]
    if unknown := set(found) - set(_WEIGHTS):
        raise InvalidConfig(f"no such weights: {', '.join(sorted(unknown))}; there are fp32 and int8.", param="weights")
    return found
