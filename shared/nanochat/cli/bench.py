"""`nanochat bench`: runs the repository's benchmarks. What they measure is tests/bench."""

import subprocess
import sys
from pathlib import Path

import typer

from nanochat.cli.settings import CliSettings
from nanochat.errors import NotFound


def bench() -> None:
    """Measure this machine: a table, and a JSON file under $NANOCHAT_HOME/bench."""
    repository = Path(__file__).parents[3]
    if not (repository / "tests" / "bench" / "run.py").is_file():
        raise NotFound("benchmarks are part of the repository, not of the installed library; run them in a clone.")
    folder = CliSettings.load().home_dir / "bench"
    raise typer.Exit(subprocess.call([sys.executable, "-m", "tests.bench.run", str(folder)], cwd=repository))
