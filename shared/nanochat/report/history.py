"""What one job has said: its progress.jsonl, read whole, with every metric as a curve and restarts cut out.

A file may end in half a line, and in the middle of anything: what is there is taken, and how the job stands follows
from its last words.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nanochat.charts import Point
from nanochat.protocol.jobs import RunSpec
from nanochat.protocol.progress import (
    CheckpointWritten,
    Failure,
    Line,
    Metric,
    Progress,
    Result,
    Sample,
    Setup,
    readable_lines,
)

Status = Literal["succeeded", "failed", "unfinished", "not started"]


class Curves:
    """Metrics by name, as points in the order of their steps."""

    def __init__(self) -> None:
        self._curves: dict[str, dict[int, float]] = {}

    def extend(self, step: int, values: Mapping[str, float]) -> None:
        """As a run goes on: what it had said of this step or later ones was before a restart, and counts no more."""
        for name, value in values.items():
            kept = self._curves.get(name, {})
            if kept and step <= next(reversed(kept)):
                kept = {earlier: old for earlier, old in kept.items() if earlier < step}
            kept[step] = value
            self._curves[name] = kept

    def insert(self, step: int, values: Mapping[str, float]) -> None:
        """One step's values, whatever there is of others."""
        for name, value in values.items():
            self._curves[name] = dict(sorted({**self._curves.get(name, {}), step: value}.items()))

    def names(self) -> list[str]:
        return list(self._curves)

    def points(self, name: str) -> list[Point]:
        return [(float(step), value) for step, value in self._curves.get(name, {}).items()]

    def newest(self) -> dict[str, float]:
        return {name: next(reversed(curve.values())) for name, curve in self._curves.items()}


@dataclass(kw_only=True)
class History:
    """A job from its folder. Times are Unix seconds; `seconds` those from the first word to the last of every attempt,
    without what lies between attempts."""

    spec: RunSpec
    setup: Setup | None = None
    progress: Progress | None = None
    curves: Curves = field(default_factory=Curves)
    samples: list[Sample] = field(default_factory=list)
    checkpoint: str | None = None
    ending: Failure | Result | None = None
    started: float | None = None
    heard: float | None = None
    seconds: float = 0.0

    @property
    def status(self) -> Status:
        if self.ending is not None:
            return "succeeded" if isinstance(self.ending, Result) else "failed"
        return "not started" if self.started is None else "unfinished"

    @property
    def failure(self) -> Failure | None:
        return self.ending if isinstance(self.ending, Failure) else None


def read_history(home: Path, spec: RunSpec) -> History:
    history = History(spec=spec)
    _tell(history, readable_lines(home / "jobs" / spec.job_id / "progress.jsonl"))
    return history


def _tell(history: History, lines: Iterable[Line]) -> None:
    for line in lines:
        # Ranks other than the one that failed may say a word after it; only jobs without a setup begin without one.
        is_new_attempt = isinstance(line, Setup) or (history.ending is not None and history.setup is None)
        if history.started is None or history.heard is None:
            history.started = line.time
        elif not is_new_attempt:
            history.seconds += max(0.0, line.time - history.heard)
        history.heard = line.time
        if isinstance(line, Failure | Result):
            history.ending = line
        elif is_new_attempt:
            history.ending = None
        match line:
            case Setup():
                history.setup = line
            case Progress():
                history.progress = line
                if line.tokens_per_second > 0:
                    history.curves.extend(line.step, {"tokens_per_second": line.tokens_per_second})
            case Metric():
                history.curves.extend(line.step, line.values)
            case Sample():
                history.samples.append(line)
            case CheckpointWritten():
                history.checkpoint = line.checkpoint
            case _:
                pass
