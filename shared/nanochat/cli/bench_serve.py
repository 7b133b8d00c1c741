"""`nanochat bench serve`: load on any OpenAI-compatible address; a table, a JSON file and a picture."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from enum import StrEnum
from typing import Annotated, Any, Literal

import typer

from nanochat.bench import report
from nanochat.bench.serving.cases import long_prompt, memory, second_turn
from nanochat.bench.serving.client import Dialect, Server
from nanochat.bench.serving.figures import Spread, Targets
from nanochat.bench.serving.sweep import Level, LoadKind, Shape, picture, sweep
from nanochat.cli.client import DEFAULT_URL
from nanochat.cli.settings import CliSettings
from nanochat.cli.state import StackState
from nanochat.cli.temporary_service import TemporaryService, random_service
from nanochat.cli.terminal import print_table, say
from nanochat.errors import InvalidConfig

DEFAULT_CONCURRENCY = "1,4,16,32"
_CASE_SLOTS = 16


class Case(StrEnum):
    LONG_PROMPT = "long-prompt"
    SECOND_TURN = "second-turn"
    MEMORY = "memory"


def serve(
    url: Annotated[
        str,
        typer.Option("--url", help="Any OpenAI-compatible server; default: $NANOCHAT_URL, or the stack of this home."),
    ] = "",
    model: Annotated[str, typer.Option(help="Default: the first that the server lists.")] = "",
    concurrency: Annotated[
        str, typer.Option(help=f"So many requests at once, each followed by the next; default: {DEFAULT_CONCURRENCY}.")
    ] = "",
    rate: Annotated[str, typer.Option(help="Requests a second at random times, such as 2,4,8, instead.")] = "",
    prompt_tokens: Annotated[str, typer.Option(help="Of a prompt: 128, 20-200, or ~80 for a mean.")] = "128",
    max_tokens: Annotated[str, typer.Option(help="Of an answer, in the same words.")] = "64",
    num_requests: Annotated[int, typer.Option(min=0, help="At each load; 0: four for each that runs at once.")] = 0,
    duration: Annotated[float, typer.Option(help="Seconds after which no request of a load is begun.")] = 60.0,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that one request may take.")] = 120.0,
    warmup: Annotated[int, typer.Option(min=-1, help="Requests not counted; -1: as many as run at once.")] = -1,
    goodput: Annotated[str, typer.Option(help="Count answers that meet ttft=500ms,itl=100ms,tpot=50ms,e2e=5s.")] = "",
    prompts: Annotated[
        Literal["auto", "ids", "text", "chat"],
        typer.Option(help="auto: token ids, or text where the server takes none."),
    ] = "auto",
    temperature: Annotated[
        float | None, typer.Option(help="Default: 1, or 2 where the server cannot be told not to stop.")
    ] = None,
    vocab_size: Annotated[int, typer.Option(min=0, help="Token ids to draw from; 0: what the server tells.")] = 0,
    seed: Annotated[int, typer.Option(help="The same seed, the same requests.")] = 0,
    case: Annotated[Case | None, typer.Option(help="One of these situations instead of a sweep.")] = None,
    random_model: Annotated[
        int, typer.Option(min=0, help="Serve a model of this depth with random weights meanwhile, and load that.")
    ] = 0,
    max_running: Annotated[
        int, typer.Option(min=0, help="Of --random-model: requests computed at once; 0: as many as run at once here.")
    ] = 0,
) -> None:
    """Measure a service under load: first tokens, gaps between tokens, throughput, goodput, errors."""
    targets = Targets.parse(goodput)
    kind, loads = _loads(concurrency, rate)
    if random_model and url:
        raise InvalidConfig("--random-model starts a server of its own; leave out --url.")
    if case is Case.MEMORY and not random_model:
        raise InvalidConfig("the memory of a server elsewhere cannot be seen; use --random-model with --case memory.")
    if not max_running:
        max_running = _CASE_SLOTS if case is not None or kind == "rate" else round(max(loads))
    shape = Shape(
        prompt_tokens=prompt_tokens,
        max_tokens=max_tokens,
        num_requests=num_requests,
        num_warmup=None if warmup < 0 else warmup,
        duration_s=duration,
        seed=seed,
    )

    async def run() -> None:
        async with _server(url, model, timeout, random_model, max_running) as (server, own):
            dialect = await server.dialect(
                num_ids=vocab_size, temperature=0.0 if own and temperature is None else temperature
            )
            if prompts != "auto":
                dialect = replace(dialect, prompts=prompts)
            served = {"url": server.url, "model": (await server.listed())["id"], "random_depth": random_model}
            if case is not None:
                await _run_case(case, server, dialect, own, num_requests, served)
                return
            say(f"{served['model']} at {server.url}: {prompt_tokens} tokens in ({dialect.prompts}), {max_tokens} out")
            levels = await sweep(server, dialect, shape, kind, loads, targets, _say_level(kind))
            _print(kind, levels, bool(goodput))
            _write(
                "serve", {**served, "shape": shape, "dialect": dialect, "load": kind, "levels": levels}, kind, levels
            )

    asyncio.run(run())


async def _run_case(
    case: Case,
    server: Server,
    dialect: Dialect,
    own: TemporaryService | None,
    num_requests: int,
    served: dict[str, Any],
) -> None:
    found: Any
    match case:
        case Case.LONG_PROMPT:
            found = await long_prompt(server, dialect)
            headline = (
                f"a prompt of {found.prompt_tokens} tokens among {found.num_streams} streams: longest gap "
                f"{1000 * found.longest_gap_s:.0f} ms, {found.ratio:.2f} x the stream's median of "
                f"{1000 * found.median_gap_s:.0f} ms; without it {found.ratio_alone:.2f} x"
            )
        case Case.SECOND_TURN:
            found = await second_turn(server, dialect)
            headline = (
                f"first turn, {found.first_prompt_tokens} tokens: TTFT {1000 * found.first_ttft_s:.0f} ms; "
                f"second, {found.second_prompt_tokens} of which {found.second_cached_tokens} cached: "
                f"{1000 * found.second_ttft_s:.0f} ms, {found.ratio:.3f} of it"
            )
        case Case.MEMORY:
            assert own is not None
            found = await memory(server, dialect, own.resident_bytes, num_requests=num_requests or 10_000)
            headline = (
                f"{found.num_requests} requests after {found.num_filling} long prompts and {found.num_warmup} short "
                f"ones of warm-up ({found.num_errors} failed): "
                f"{found.before_bytes / 2**20:.1f} MiB before, {found.after_bytes / 2**20:.1f} after, "
                f"{100 * found.growth_ratio:+.2f}%"
            )
    say(headline)
    for path in report.write(CliSettings.load().home_dir / "bench", case.value, {**served, **asdict(found)}):
        say(f"Written to {path}")


@asynccontextmanager
async def _server(
    url: str, model: str, timeout_s: float, random_model: int, max_running: int
) -> AsyncIterator[tuple[Server, TemporaryService | None]]:
    settings = CliSettings.load()
    if random_model:
        async with (
            random_service(depth=random_model, max_running=max_running) as own,
            Server(own.url, timeout_s=timeout_s) as server,
        ):
            yield server, own
        return
    running = None if url or settings.url else StackState.running(settings.home_dir)
    found = url or settings.url or (running.url if running else DEFAULT_URL)
    # A key of the stack's own is not sent to an address that was typed.
    key = settings.api_key.get_secret_value() if url else settings.key
    async with Server(found, model=model, key=key, timeout_s=timeout_s) as server:
        yield server, None


def _loads(concurrency: str, rate: str) -> tuple[LoadKind, list[float]]:
    if concurrency and rate:
        raise InvalidConfig("give --concurrency or --rate, not both: so many at once, or so many a second.")
    name: LoadKind = "rate" if rate else "concurrency"
    text = rate or concurrency or DEFAULT_CONCURRENCY
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = [0.0]
    is_whole = name == "rate" or all(load == int(load) for load in found if load < float("inf"))
    if not all(0 < load <= 2000 for load in found) or not is_whole:
        raise InvalidConfig(
            f"--{name} {text!r} is no list of loads; give numbers up to 2000, such as 1,4,16.", param=name
        )
    return name, found


def _say_level(kind: LoadKind) -> Any:
    def tell(level: Level) -> None:
        one = level.figures
        say(f"  {kind} {level.load:g}: {one.num_requests} requests in {one.duration_s:.1f} s, {one.num_errors} failed")

    return tell


def _print(kind: LoadKind, levels: Sequence[Level], has_targets: bool) -> None:
    # Short, so that eighty columns hold it.
    headings = [kind, "tokens/s", "req/s", "TTFT p50", "p95", "p99", "ITL p50", "p95", "p99", "E2E p50"]
    headings += ["good", "good/s"] if has_targets else []
    rows = []
    for level in levels:
        one = level.figures
        row = [f"{level.load:g}", f"{one.output_tokens_per_second:.1f}", f"{one.request_rate:.2f}"]
        row += [*_milliseconds(one.ttft), *_milliseconds(one.itl), _milliseconds(one.e2e)[0]]
        row += [f"{one.good_ratio:.0%}", f"{one.good_rate:.2f}"] if has_targets else []
        rows.append(row)
    print_table(headings, rows, empty="nothing was measured")
    say("Milliseconds: to the first token (TTFT), between two parts of the text (ITL), the whole answer (E2E).")
    for level in levels:
        one = level.figures
        for error, count in one.errors.items():
            say(f"{kind} {level.load:g}: {count} of {one.num_requests} requests failed: {error}")
        if one.num_short:
            say(f"{kind} {level.load:g}: {one.num_short} answers ended before their last token")


def _milliseconds(spread: Spread) -> list[str]:
    return ["-" if value is None else f"{1000 * value:.4g}" for value in (spread.p50, spread.p95, spread.p99)]


def _write(name: str, values: dict[str, Any], kind: LoadKind, levels: Sequence[Level]) -> None:
    title = f"{values['model']} at {values['url']}"
    for path in report.write(CliSettings.load().home_dir / "bench", name, values, picture(title, kind, levels)):
        say(f"Written to {path}")
