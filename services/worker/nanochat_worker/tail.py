"""Follows progress.jsonl: whole lines only, from a byte on, as protocol/progress.py defines them."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from nanochat.jobs.leases import Report
from nanochat.protocol.progress import CheckpointWritten, Line, Metric, Progress, progress_line

log = logging.getLogger(__name__)

_BLOCK_BYTES = 1 << 20


class ProgressTail:
    """Reads on from `offset`. A line that cannot be read is logged and passed over: the run itself is worth more."""

    def __init__(self, path: Path, offset: int) -> None:
        self._path = path
        self.offset = offset

    def read(self) -> list[Line]:
        """The lines that are new since the last call, at most a block of them."""
        try:
            with self._path.open("rb") as file:
                file.seek(self.offset)
                block = file.read(_BLOCK_BYTES)
        except FileNotFoundError:
            return []
        end = block.rfind(b"\n") + 1
        self.offset += end
        return [line for raw in block[:end].splitlines() if raw and (line := self._parse(raw)) is not None]

    def mend(self) -> None:
        """End a line that a killed writer left half-written, lest the next one be appended to it."""
        if self._path.exists() and self.offset < self._path.stat().st_size:
            with self._path.open("ab") as file:
                file.write(b"\n")

    def _parse(self, raw: bytes) -> Line | None:
        try:
            line = progress_line.validate_json(raw)
        except ValidationError:
            log.warning("progress_line_unreadable", extra={"path": str(self._path), "size_bytes": len(raw)})
            return None
        if isinstance(line, Metric):
            # PostgreSQL's JSON has no NaN, and a chart has no use for one.
            line.values = {name: value for name, value in line.values.items() if math.isfinite(value)}
        return line


def report(lines: Sequence[Line], offset: int) -> Report:
    """What the database is told: every metric, but only the newest progress and checkpoint."""
    progress = [line for line in lines if isinstance(line, Progress)]
    checkpoints = [line.checkpoint for line in lines if isinstance(line, CheckpointWritten)]
    return Report(
        offset=offset,
        progress=progress[-1] if progress else None,
        metrics=[line for line in lines if isinstance(line, Metric)],
        checkpoint=checkpoints[-1] if checkpoints else None,
    )
