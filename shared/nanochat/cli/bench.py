"""`nanochat bench`: runs the repository's benchmarks (tests/bench); its commands ask how many replicas are needed."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from nanochat.cli import bench_engine, bench_serve, capacity
from nanochat.cli.settings import CliSettings
from nanochat.errors import NotFound

app = typer.Typer(invoke_without_command=True)
app.command()(bench_engine.engine)
app.command()(bench_serve.serve)
app.command()(capacity.curves)
app.command("capacity")(capacity.capacity)


@app.callback()
def bench(
    context: typer.Context,
    data: Annotated[Path | None, typer.Option(help="Folder of the dataset for the loader; else the built-in.")] = None,
) -> None:
    """Measure this machine: a table, and a JSON file under $NANOCHAT_HOME/bench."""
    if context.invoked_subcommand:
        return
    repository = Path(__file__).parents[3]
    if not (repository / "tests" / "bench" / "run.py").is_file():
        raise NotFound("benchmarks are part of the repository, not of the installed library; run them in a clone.")
    folder = CliSettings.load().home_dir / "bench"
    arguments = [str(folder), *([] if data is None else [str(data.resolve())])]
    raise typer.Exit(subprocess.call([sys.executable, "-m", "tests.bench.run", *arguments], cwd=repository))
