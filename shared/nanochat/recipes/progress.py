"""Writes progress.jsonl, a job's word to the worker: how far it is, what it measured, what it made, why it failed.

Append-only, a JSON object a line (protocol/progress.py), flushed at once: a reader that follows the file is never more
than a line behind, and a killed recipe leaves whole lines. Of several ranks only the first writes, but for the word
why the run failed, which is that of the rank that failed first.
"""

import fcntl
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from nanochat.protocol.progress import (
    CheckpointWritten,
    Environment,
    Failure,
    Line,
    Metric,
    Progress,
    Result,
    Sample,
    Setup,
)
from nanochat.recipes.tracker import Tracker

# Often enough for a progress bar, seldom enough that a long job's file stays small.
INTERVAL_S = 1.0
# Weight of the newest interval in the running speed: the last ten intervals or so count.
_NEWEST_WEIGHT = 0.2


class ProgressWriter:
    """One job's file. Close it, or use it in `with`. `clock` gives monotonic seconds.

    `is_first`: this is rank 0, or the only one. A checkpoint may be reported from another thread.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic, *, is_first: bool = True) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+", encoding="utf-8")
        self._start = self._file.tell()
        self._is_first = is_first
        self._lock = threading.Lock()
        self._clock = clock
        self._speed = Speed(clock)
        self._last_written: float | None = None
        self._step = 0
        self._tracker: Tracker | None = None

    def track(self, tracker: Tracker) -> None:
        """Send every metric there too, until close()."""
        self._tracker = tracker

    def progress(self, step: int, num_steps: int, tokens: int = 0, *, force: bool = False) -> None:
        """Say how far the job is. Passed over within INTERVAL_S of the last time unless `force`, or at the end."""
        self._step = step
        now = self._clock()
        is_due = self._last_written is None or now - self._last_written >= INTERVAL_S
        if not (is_due or force or step >= num_steps):
            if self._speed.is_paused:
                self._speed.update(step, tokens)  # steps are counted from here, also in a run of a second
            return
        self._last_written = now
        self._speed.update(step, tokens)
        seconds_per_step = self._speed.seconds_per_step
        self._write(
            Progress(
                time=time.time(),
                step=step,
                num_steps=num_steps,
                tokens=tokens,
                tokens_per_second=self._speed.tokens_per_second,
                eta_s=None if seconds_per_step is None else max(0, num_steps - step) * seconds_per_step,
            )
        )

    def paused(self) -> None:
        """Something else took time (a checkpoint, an evaluation): it does not count in the speed of the steps."""
        self._speed.pause()

    @property
    def tokens_per_second(self) -> float:
        return self._speed.tokens_per_second

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Values that are no finite number are left out: JSON has none."""
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        if finite:
            self._write(Metric(time=time.time(), step=step, values=finite))
            if self._tracker is not None:
                self._tracker.metrics(step, finite)

    def setup(
        self,
        *,
        device: str,
        precision: str,
        attention: str,
        window_attention: str,
        num_parameters: int | None = None,
        flops_per_token: int | None = None,
        environment: Environment | None = None,
    ) -> None:
        """What the run computes with, once at its start."""
        self._write(
            Setup(
                time=time.time(),
                device=device,
                precision=precision,
                attention=attention,
                window_attention=window_attention,
                num_parameters=num_parameters,
                flops_per_token=flops_per_token,
                environment=environment,
            )
        )

    def sample(self, prompt: str, text: str, step: int | None = None) -> None:
        """What the model says; without `step`, at the one that was told last."""
        self._write(Sample(time=time.time(), step=self._step if step is None else step, prompt=prompt, text=text))

    def checkpoint(self, step: int, checkpoint: str) -> None:
        self._write(CheckpointWritten(time=time.time(), step=step, checkpoint=checkpoint))

    def failure(self, code: str, message: str) -> None:
        """Passed over where another rank has said why already."""
        line = Failure(time=time.time(), code=code, message=message)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._file.seek(self._start)
        if f'"type":"{line.type}"' not in self._file.read():
            self._append(line)
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def result(self, output: str | None, values: dict[str, float] | None = None) -> None:
        self._write(Result(time=time.time(), output=output, values=values or {}))

    def close(self) -> None:
        self._file.close()
        if self._tracker is not None:
            self._tracker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, line: Line) -> None:
        if self._is_first:
            self._append(line)

    def _append(self, line: Line) -> None:
        with self._lock:
            self._file.write(line.model_dump_json() + "\n")
            self._file.flush()


class Speed:
    """Running averages of tokens a second and seconds a step, over the time that was spent on steps."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: tuple[float, int, int] | None = None  # time, step, tokens
        self.is_paused = False
        self.tokens_per_second = 0.0
        self.seconds_per_step: float | None = None

    def update(self, step: int, tokens: int) -> None:
        now = self._clock()
        if self._since is not None and not self.is_paused:
            elapsed, steps, gained = now - self._since[0], step - self._since[1], tokens - self._since[2]
            if steps > 0 and elapsed > 0:
                is_first = self.seconds_per_step is None
                weight = 1.0 if is_first else _NEWEST_WEIGHT
                previous = self.seconds_per_step or 0.0
                self.seconds_per_step = previous + weight * (elapsed / steps - previous)
                self.tokens_per_second += weight * (gained / elapsed - self.tokens_per_second)
        self._since = (now, step, tokens)
        self.is_paused = False

    def pause(self) -> None:
        self.is_paused = True
