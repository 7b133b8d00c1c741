"""`nanochat miniseries` and `nanochat scaling-laws`: what the finished runs of a series say, and which are missing."""

from typing import Annotated

import typer

from nanochat.bench import report
from nanochat.cli.settings import CliSettings
from nanochat.cli.terminal import print_table, say
from nanochat.errors import NotFound
from nanochat.files import write_file
from nanochat.numbers import count, duration
from nanochat.scaling.fit import Budget, PowerLaw, ScalingLaws, fit_scaling_laws
from nanochat.scaling.picture import draw
from nanochat.scaling.runs import Series, read_series

Runs = Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs, or the pipeline's name of a whole series.")]


def miniseries(
    runs: Runs, profile: Annotated[str, typer.Option(help="The pipeline's profile.")] = "miniseries"
) -> None:
    """A table of the models of a series: sizes, results, time."""
    series = _read(runs, profile)
    rows = []
    for run in sorted(series.runs, key=lambda run: (run.depth, run.run)):
        core = "-" if run.core_metric is None else f"{run.core_metric:.4f}"
        took = "-" if run.seconds is None else duration(run.seconds)
        cells = [str(run.depth), count(run.parameters), count(run.tokens), f"{run.flops:.3g}", f"{run.val_bpb:.4f}"]
        rows.append([run.run, *cells, core, took])
    headings = ("run", "depth", "params", "tokens", "FLOPs", "val_bpb", "CORE", "time")
    print_table(headings, rows, empty="no run of the series is finished")
    _say_missing(series)


def scaling_laws(
    runs: Runs, profile: Annotated[str, typer.Option(help="The pipeline's profile.")] = "scaling_laws"
) -> None:
    """Fit the best size for each FLOP budget, and how it grows; a table, and JSON and a picture under reports/."""
    series = _read(runs, profile)
    if not series.runs:
        _say_missing(series)
        raise NotFound(f"no run of {', '.join(runs)} is finished; there is nothing to fit yet.")
    laws = fit_scaling_laws(series.runs)
    print_table(
        ("budget", "sizes", "best params", "its tokens", "tokens/param", "val_bpb", "note"),
        [_budget_row(budget) for budget in laws.budgets],
        empty="",
    )
    _say_laws(laws)
    _say_missing(series)
    folder = CliSettings.load().home_dir / "reports" / runs[0]
    figures = {"laws": laws, "missing": series.missing}
    for path, content in (
        (folder / "scaling_laws.json", report.as_json(figures)),
        (folder / "scaling_laws.svg", draw(f"Scaling laws of {', '.join(runs)}", laws)),
    ):
        write_file(path, content.encode())
        say(f"Written to {path}")


def _read(runs: list[str], profile: str) -> Series:
    return read_series(CliSettings.load().home_dir, runs, profile)


def _budget_row(budget: Budget) -> list[str]:
    row = [f"{budget.flops:.3g}", str(len(budget.runs))]
    if budget.best_parameters is None or budget.best_tokens is None or budget.best_loss is None:
        return [*row, "-", "-", "-", "-", budget.note]
    row += [count(round(budget.best_parameters)), count(round(budget.best_tokens))]
    return [*row, f"{budget.best_tokens / budget.best_parameters:.1f}", f"{budget.best_loss:.4f}", budget.note]


def _say_laws(laws: ScalingLaws) -> None:
    if laws.parameters is None or laws.tokens is None:
        say("Two budgets with a lowest point are needed to tell how the best size grows.")
        return
    say(f"Best parameters: {_formula(laws.parameters)}   tokens: {_formula(laws.tokens)}   (C: FLOPs)")


def _formula(law: PowerLaw) -> str:
    return f"{law.factor:.3g} C^{law.exponent:.3f}"


def _say_missing(series: Series) -> None:
    for run, reason in series.missing.items():
        say(f"missing: {run} ({reason})")
