"""Puts a run's page where it is looked for: reports/<run>/report.md and report.html, each whole or as it was before."""

import time
from dataclasses import dataclass
from pathlib import Path

from nanochat.files import write_file
from nanochat.report.content import write_content
from nanochat.report.html import to_html
from nanochat.report.markdown import to_markdown
from nanochat.report.run import read_run


@dataclass(frozen=True, kw_only=True)
class Written:
    markdown: Path
    html: Path


def report_folder(home: Path, run: str) -> Path:
    return home / "reports" / run


def write_report(home: Path, run: str) -> Written:
    """Raises NotFound for a run of which nothing is known, InvalidConfig for what can be no run's name, OSError."""
    document = write_content(read_run(home, run), time.time())
    folder = report_folder(home, run)
    written = Written(markdown=folder / "report.md", html=folder / "report.html")
    write_file(written.markdown, to_markdown(document).encode("utf-8", "replace"))
    write_file(written.html, to_html(document).encode("utf-8", "replace"))
    return written
