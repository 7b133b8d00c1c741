"""Follows a job over REST until it ends, with a bar for it or for each stage of a pipeline; plain lines where the
output is no terminal. What to do with the result is the caller's matter."""

import asyncio
import sys
import time
from typing import Protocol, Self

from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from nanochat.cli.client import ApiClient
from nanochat.cli.terminal import console, say
from nanochat.errors import DeadlineExceeded, NanochatError, Unavailable
from nanochat.numbers import duration
from nanochat.protocol.jobs import FINAL_STATUSES, Job, stage_name

POLL_S = 1.0
PLAIN_EVERY_S = 10.0
SILENCE_S = 60.0


class JobFailed(NanochatError):
    """A followed job did not succeed. The message holds its error and the end of its log."""

    code = "job_failed"


async def get_job(api: ApiClient, job_id: str) -> Job:
    return Job.model_validate(await api.get(f"/v1/jobs/{job_id}"))


async def follow(api: ApiClient, job_id: str) -> list[Job]:
    """Show the job until it ends; then itself, or a pipeline's stages in order. Raises JobFailed.

    A service that is started again meanwhile answers nothing for some seconds; only a longer silence raises.
    """
    answered_at = time.monotonic()
    ended: dict[str, Job] = {}  # asked for no more: training needs every core
    with _display() as display:
        while True:
            try:
                job = await get_job(api, job_id)
                stages = [ended.get(stage) or await get_job(api, stage) for stage in job.stages] or [job]
            except (Unavailable, DeadlineExceeded):
                if time.monotonic() - answered_at > SILENCE_S:
                    raise
                await asyncio.sleep(POLL_S)
                continue
            answered_at = time.monotonic()
            for stage in stages:
                display.show(stage, stage_name(stage.kind, stage.name, job.name))
                if stage.status == "succeeded":
                    ended[stage.id] = stage
            if job.status in FINAL_STATUSES:
                break
            await asyncio.sleep(POLL_S)
    if job.status != "succeeded":
        raise JobFailed(failure_of(job, stages))
    return stages


def failure_of(job: Job, stages: list[Job]) -> str:
    """Which job ended how, why, and the end of its log."""
    culprit = next((stage for stage in stages if stage.status == "failed"), job)
    lines = [f"{culprit.kind} job {culprit.id} {culprit.status}"]
    if culprit.error:
        lines[0] += f": {culprit.error.message} ({culprit.error.code})"
        lines += [f"  | {line}" for line in culprit.error.log_tail]
    return "\n".join([*lines, f"The log: nanochat jobs logs {culprit.id}"])


class _Display(Protocol):
    def __enter__(self) -> Self: ...
    def __exit__(self, *exception: object) -> None: ...
    def show(self, job: Job, label: str) -> None: ...


def _display() -> _Display:
    return _Bars() if console.is_terminal else _Lines()


def _figures(job: Job) -> str:
    """Loss, speed and time left, as far as they are known."""
    parts = []
    if "train_loss" in job.metrics:
        parts.append(f"loss {job.metrics['train_loss']:.3f}")
    if "val_bpb" in job.metrics:
        parts.append(f"val_bpb {job.metrics['val_bpb']:.3f}")
    if "reward" in job.metrics:
        parts.append(f"reward {job.metrics['reward']:.3f}")
    if job.progress.tokens_per_second:
        parts.append(f"{job.progress.tokens_per_second:,.0f} tokens/s")
    if job.status == "running" and job.progress.eta_s is not None:
        parts.append(f"{duration(job.progress.eta_s)} left")
    if job.status in FINAL_STATUSES:
        took = duration(job.finished_at - job.started_at) if job.started_at and job.finished_at else ""
        parts.append(" in ".join(part for part in (job.status, took) if part))
    return "  ".join(parts) or job.status


class _Bars:
    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TextColumn("{task.fields[figures]}", markup=False),
            console=console,
        )
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def show(self, job: Job, label: str) -> None:
        if job.id not in self._bars:
            self._bars[job.id] = self._progress.add_task(label, total=1.0, figures="")
        ratio = 1.0 if job.status == "succeeded" else job.progress.ratio
        self._progress.update(self._bars[job.id], completed=ratio, figures=_figures(job))


class _Lines:
    """A line whenever a job's status changes, and one every ten seconds while it runs."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, float]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        sys.stdout.flush()

    def show(self, job: Job, label: str) -> None:
        status, shown_at = self._last.get(job.id, ("queued", 0.0))
        is_due = job.status == "running" and time.monotonic() - shown_at >= PLAIN_EVERY_S
        if job.status == status and not is_due:
            return
        self._last[job.id] = (job.status, time.monotonic())
        say(f"{label:<10} {job.progress.ratio:4.0%}  {_figures(job)}")
        sys.stdout.flush()
