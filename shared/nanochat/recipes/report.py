"""Writes the page about a run: what it says, and where it lies, is report/."""

import logging

from nanochat.protocol.jobs import ReportConfig
from nanochat.recipes.distributed import require_one
from nanochat.recipes.job import JobContext, Outcome
from nanochat.report.writing import write_report

log = logging.getLogger(__name__)


def run(job: JobContext, config: ReportConfig) -> Outcome:
    """Leaves nothing that another job could name: the files' place follows from the run. Raises NotFound, OSError."""
    require_one(job.ranks, "report")
    written = write_report(job.home, config.run)
    job.progress.progress(1, 1, force=True)
    log.info("report_written", extra={"markdown": str(written.markdown), "html": str(written.html)})
    return Outcome(output=None)
