"""`nanochat bench curves` and `nanochat bench capacity`: how many replicas hold a latency target."""

import asyncio
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from nanochat.bench.serving.arrivals import Arrival, Pattern, cut_to_context, read_trace
from nanochat.capacity.curves import Curves
from nanochat.capacity.load import Gateway, as_they_became
from nanochat.capacity.measure import measure
from nanochat.capacity.simulator import simulate
from nanochat.capacity.sizing import Figures, Target, figures, gateways, size
from nanochat.cli.client import DEFAULT_URL
from nanochat.cli.settings import CliSettings
from nanochat.cli.state import StackState
from nanochat.cli.terminal import print_table, say
from nanochat.errors import InvalidConfig, NanochatError
from nanochat.files import write_file

CurvesFile = Annotated[Path, typer.Argument(help="Curves of one replica, which `nanochat bench curves` writes.")]
Url = Annotated[str, typer.Option("--url", help="The gateway; default: $NANOCHAT_URL, or the stack of this home.")]


def curves(
    file: CurvesFile,
    url: Url = "",
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each point; the median counts.")] = 3,
) -> None:
    """Measure what serves now: the cost of a step by rows and context. Takes a minute of a service that is idle."""

    async def run() -> Curves:
        async with _gateway(url) as gateway:
            return await measure(gateway, num_rounds=rounds, say=say)

    found = asyncio.run(run())
    _write(file, found.model_dump())
    say(f"{found.model} ({found.checkpoint}) measured: {file}")


def capacity(
    file: CurvesFile,
    rate: Annotated[float | None, typer.Option(help="Requests a second, at random times.")] = None,
    users: Annotated[
        int | None, typer.Option(min=1, help="People who chat at the same time, in place of --rate.")
    ] = None,
    every: Annotated[float, typer.Option(help="Seconds from one message of a user to the next.")] = 30.0,
    trace: Annotated[Path | None, typer.Option(help="JSON lines of time_s, prompt_tokens, answer_tokens.")] = None,
    prompt: Annotated[str, typer.Option(help="Tokens of a prompt: 50, 20-200, or ~80 for a mean.")] = "20-200",
    answer: Annotated[str, typer.Option(help="Tokens of an answer, in the same words.")] = "~60",
    ttft: Annotated[float, typer.Option(help="Seconds within which 95 of 100 first tokens come.")] = 1.0,
    speed: Annotated[float, typer.Option(help="Tokens a second of 95 of 100 answers, at least; 0: any.")] = 10.0,
    max_replicas: Annotated[int, typer.Option(help="Give up beyond.")] = 64,
    requests: Annotated[int, typer.Option(help="Requests to simulate.")] = 2000,
    seed: Annotated[int, typer.Option(help="The same seed, the same arrivals.")] = 1,
    output: Annotated[Path | None, typer.Option("--json", help="Write the figures there too.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Send these arrivals to the gateway too, and compare.")
    ] = False,
    url: Url = "",
) -> None:
    """Say how many replicas hold a latency target. Exit status 1: more than --max-replicas."""
    known = Curves.load(file)
    arrivals = cut_to_context(
        _arrivals(rate, users, every, trace, prompt, answer, requests, seed), known.context_length
    )
    target = Target(ttft_s=ttft, tokens_per_second=speed)
    if check:
        _check(known, arrivals, url, output)
        return
    tried = size(known, arrivals, target, max_replicas)
    enough = next((one.num_replicas for one in tried if one.holds(target)), None)
    say(f"{len(arrivals)} requests, {_rate(arrivals):.2f} a second, to {known.model} ({known.checkpoint})")
    _print([(str(one.num_replicas) + (" <" if one.num_replicas == enough else ""), one) for one in tried])
    wanted = f"a first token within {ttft:g} s and {speed:g} tokens/s, each for 95 of 100 requests"
    if output:
        _write(output, {"replicas": enough, "target": asdict(target), "tried": [_plain(one) for one in tried]})
    if enough is None:
        say(f"{max_replicas} replicas do not hold {wanted}.")
        raise typer.Exit(1)
    say(f"{enough} replica{'s'[: enough > 1]} hold{'s'[: enough == 1]} {wanted}.")
    say(_of_gateways(known, arrivals))


def _of_gateways(known: Curves, arrivals: Sequence[Arrival]) -> str:
    num_tokens = sum(arrival.answer_tokens for arrival in arrivals)
    tokens_per_second = num_tokens / max(arrivals[-1].time_s, 1e-9)
    needed = gateways(known, tokens_per_second)
    if needed is None:
        return "What a gateway bears is not in these curves: watch its CPU, and run two beyond 2,000 tokens/s."
    return f"{needed} gateway{'s'[: needed > 1]} of one core each for {tokens_per_second:.0f} tokens/s of answers."


def _check(known: Curves, arrivals: Sequence[Arrival], url: str, output: Path | None) -> None:
    """The real thing beside the simulation of what it was asked."""

    async def run() -> tuple[Figures, Figures]:
        async with _gateway(url) as gateway:
            num_replicas = (await gateway.service()).num_replicas
            real = await gateway.replay(arrivals)
        simulated = simulate(known, as_they_became(real), num_replicas)
        return figures(real, num_replicas), figures(simulated, num_replicas)

    say(f"sending {len(arrivals)} requests, {_rate(arrivals):.2f} a second, for {arrivals[-1].time_s:.0f} s")
    real, simulated = asyncio.run(run())
    _print([("measured", real), ("simulated", simulated)], heading="")
    if output:
        _write(output, {"measured": _plain(real), "simulated": _plain(simulated)})


def _arrivals(
    rate: float | None,
    users: int | None,
    every: float,
    trace: Path | None,
    prompt: str,
    answer: str,
    requests: int,
    seed: int,
) -> list[Arrival]:
    if sum(one is not None for one in (rate, users, trace)) != 1:
        raise InvalidConfig("give exactly one of --rate, --users and --trace: when do requests come?")
    if trace is not None:
        return read_trace(trace)
    if users is not None:
        if not 0 < every < math.inf:
            raise InvalidConfig(f"a message every {every:g} s is no habit; give --every above 0.")
        rate = users / every
    assert rate is not None
    return Pattern(rate=rate, prompt_tokens=prompt, answer_tokens=answer).draw(requests, seed)


def _gateway(url: str) -> Gateway:
    settings = CliSettings.load()
    running = None if url or settings.url else StackState.running(settings.home_dir)
    found = url or settings.url or (running.url if running else DEFAULT_URL)
    return Gateway(found, settings.key)


def _rate(arrivals: Sequence[Arrival]) -> float:
    return len(arrivals) / max(arrivals[-1].time_s, 1e-9)


def _print(rows: Sequence[tuple[str, Figures]], heading: str = "replicas") -> None:
    headings = (heading, "first token p50", "p95", "tokens/s p50", "p5", "all tokens/s", "refused", "busy")
    shown = [
        (
            name,
            _seconds(one.ttft_p50_s),
            _seconds(one.ttft_p95_s),
            f"{one.tokens_per_second_p50:.1f}",
            f"{one.tokens_per_second_p5:.1f}",
            f"{one.output_tokens_per_second:.0f}",
            str(one.num_refused),
            "" if math.isnan(one.busy_ratio) else f"{one.busy_ratio:.2f}",
        )
        for name, one in rows
    ]
    print_table(headings, shown, empty="")


def _seconds(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:.3f} s"


def _plain(one: Figures) -> dict[str, Any]:
    """As JSON has no infinity: null for a first token that never came."""
    return {
        name: value if not isinstance(value, float) or math.isfinite(value) else None
        for name, value in asdict(one).items()
    }


def _write(path: Path, values: dict[str, Any]) -> None:
    try:
        write_file(path, (json.dumps(values, indent=2) + "\n").encode())
    except OSError as exc:
        raise NanochatError(f"{path} cannot be written: {exc.strerror}.") from exc
