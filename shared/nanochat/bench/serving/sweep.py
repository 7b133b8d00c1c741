"""The same requests at one load after the other, each after a warm-up that is not counted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from nanochat.bench.serving import plot
from nanochat.bench.serving.arrivals import Arrival, Pattern
from nanochat.bench.serving.client import Answer, Dialect, Server, draw
from nanochat.bench.serving.figures import LoadFigures, Targets, load_figures
from nanochat.bench.serving.load import Ask, closed_loop, open_loop
from nanochat.errors import InvalidConfig

LoadKind = Literal["concurrency", "rate"]
_REQUESTS_A_STREAM = 4


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Of the requests at each load. Lengths as arrivals.py reads them. num_requests 0: four for each that runs at once,
    8 at least; or as many as come in duration_s at a rate. num_warmup None: as many as run at once."""

    prompt_tokens: str = "128"
    max_tokens: str = "64"
    num_requests: int = 0
    num_warmup: int | None = None
    duration_s: float = 60.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.duration_s < float("inf"):
            raise InvalidConfig(f"{self.duration_s:g} s is no duration; give seconds above 0.", param="duration")


@dataclass(frozen=True, kw_only=True)
class Level:
    load: float
    figures: LoadFigures


async def sweep(
    server: Server,
    dialect: Dialect,
    shape: Shape,
    kind: LoadKind,
    loads: Sequence[float],
    targets: Targets,
    say: Callable[[Level], None] = lambda _: None,
) -> list[Level]:
    """A level for each load, told as it is measured. Failed requests are in the figures; nothing raises for them."""
    levels = []
    for load in loads:
        at_once = round(load) if kind == "concurrency" else 4
        warmup = _arrivals(shape, 1.0, at_once if shape.num_warmup is None else shape.num_warmup, f"warm-up/{load}")
        if warmup:
            ask = _asker(server, dialect, warmup, f"warm-up/{load}/{shape.seed}")
            await closed_loop(ask, concurrency=at_once, num_requests=len(warmup), duration_s=shape.duration_s)
        if kind == "concurrency":
            arrivals = _arrivals(shape, 1.0, shape.num_requests or max(8, _REQUESTS_A_STREAM * at_once), str(load))
            ask = _asker(server, dialect, arrivals, f"{load}/{shape.seed}")
            run = await closed_loop(ask, concurrency=at_once, num_requests=len(arrivals), duration_s=shape.duration_s)
        else:
            arrivals = _arrivals(shape, load, shape.num_requests or round(load * shape.duration_s) + 1, str(load))
            ask = _asker(server, dialect, arrivals, f"{load}/{shape.seed}")
            run = await open_loop(ask, arrivals, duration_s=shape.duration_s)
        levels.append(Level(load=load, figures=load_figures(run, targets)))
        say(levels[-1])
    return levels


def _asker(server: Server, dialect: Dialect, arrivals: Sequence[Arrival], name: str) -> Ask:
    async def ask(number: int) -> Answer:
        arrival = arrivals[number]
        prompt = draw(dialect, arrival.prompt_tokens, seed=f"{name}/{number}")
        return await server.ask(dialect, prompt, max_tokens=arrival.answer_tokens)

    return ask


def _arrivals(shape: Shape, rate: float, num_requests: int, name: str) -> list[Arrival]:
    if not num_requests:
        return []
    pattern = Pattern(rate=rate, prompt_tokens=shape.prompt_tokens, answer_tokens=shape.max_tokens)
    return pattern.draw(num_requests, f"{shape.seed}/{name}")


def picture(title: str, kind: LoadKind, levels: Sequence[Level]) -> str:
    def milliseconds(name: str, ratio: str) -> plot.Line:
        values = [getattr(getattr(level.figures, name), ratio) for level in levels]
        return plot.Line(name=ratio, values=[None if value is None else 1000 * value for value in values])

    charts = [
        plot.Chart(
            title="Output",
            unit="tokens/s",
            lines=[plot.Line(name="all", values=[level.figures.output_tokens_per_second for level in levels])],
        ),
        plot.Chart(
            title="First token", unit="ms", lines=[milliseconds("ttft", ratio) for ratio in ("p50", "p95", "p99")]
        ),
        plot.Chart(title="Gaps", unit="ms", lines=[milliseconds("itl", ratio) for ratio in ("p50", "p95", "p99")]),
    ]
    name = "requests at once" if kind == "concurrency" else "requests a second"
    return plot.draw(title, name, [level.load for level in levels], charts)
