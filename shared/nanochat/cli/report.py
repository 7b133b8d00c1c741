"""`nanochat report`: one page about a run, written from the files of this home; or by a job, where NANOCHAT_URL names a
gateway, whose files lie elsewhere."""

from typing import Annotated

import typer

from nanochat.cli.jobs import submit
from nanochat.cli.settings import CliSettings
from nanochat.cli.terminal import say
from nanochat.protocol.jobs import JobSpec
from nanochat.report.writing import write_report


def report(run: Annotated[str, typer.Argument(help="The run's name, finished or not.")]) -> None:
    """Write reports/RUN/report.md and report.html: curves, samples, results by stage, time and cost."""
    settings = CliSettings.load()
    if settings.url:
        submit(JobSpec(kind="report", config={"run": run}))
        say(f"reports/{run}/report.md and report.html, under the $NANOCHAT_HOME of {settings.url}")
        return
    written = write_report(settings.home_dir, run)
    say(str(written.markdown))
    say(str(written.html))
