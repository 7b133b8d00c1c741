"""jobs/<id>/log.txt, whole or its end. The worker writes it; a job that never ran has none."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nanochat.protocol.jobs import Job

_BLOCK_BYTES = 64 * 1024
_EVENT_BYTES = 256 * 1024


def log_file(home: Path, job_id: str) -> Path:
    return home / "jobs" / job_id / "log.txt"


def read_log(home: Path, jobs: Sequence[Job]) -> Iterator[bytes]:
    """The logs of these jobs one after another, in blocks, each under a heading where there are several."""
    for job in jobs:
        path = log_file(home, job.id)
        if not path.is_file():
            continue
        if len(jobs) > 1:
            yield _heading(job).encode() + b"\n"
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                yield block


def tail_log(home: Path, jobs: Sequence[Job], num_lines: int) -> list[str]:
    """The last lines of these logs together."""
    lines: list[str] = []
    for job in reversed(jobs):
        found = tail_lines(log_file(home, job.id), num_lines - len(lines))
        if len(jobs) > 1 and found:
            found = [_heading(job), *found]
        lines = [*found, *lines]
        if len(lines) >= num_lines:
            break
    return lines[-num_lines:]


def tail_lines(path: Path, num_lines: int) -> list[str]:
    """The last lines of a file, read from its end. Empty when there is no file."""
    if not path.is_file() or num_lines < 1:
        return []
    with path.open("rb") as file:
        position = file.seek(0, 2)
        content = b""
        while position > 0 and content.count(b"\n") <= num_lines:
            size = min(_BLOCK_BYTES, position)
            position -= size
            file.seek(position)
            content = file.read(size) + content
    return content.decode("utf-8", "replace").splitlines()[-num_lines:]


@dataclass(frozen=True, kw_only=True)
class NewLines:
    """Lines of one job's log. `offset` is the byte behind them, counted over the logs of all the jobs asked for."""

    job: Job
    lines: list[str]
    offset: int


def new_lines(home: Path, jobs: Sequence[Job], offset: int, *, is_whole: bool) -> NewLines | None:
    """Lines from byte `offset` on of these jobs' logs, taken as one file: stages run one after another.

    Whole lines only as long as a log may grow; `is_whole` says that none does any more. None: there is nothing new.
    """
    begin = 0
    logs = [(job, path) for job in jobs if (path := log_file(home, job.id)).is_file()]
    for position, (job, path) in enumerate(logs):
        size = path.stat().st_size
        if offset < begin + size:
            has_ended = is_whole or position + 1 < len(logs)
            lines, num_bytes = _read_lines(path, offset - begin, has_ended)
            return NewLines(job=job, lines=lines, offset=offset + num_bytes) if num_bytes else None
        begin += size
    return None


def _read_lines(path: Path, offset: int, has_ended: bool) -> tuple[list[str], int]:
    """At most _EVENT_BYTES of lines, and their length. A last line without an end counts once the log has ended."""
    with path.open("rb") as file:
        file.seek(offset)
        content = file.read(_EVENT_BYTES)
    num_bytes = content.rfind(b"\n") + 1
    is_at_end = len(content) < _EVENT_BYTES
    if (is_at_end and has_ended) or (num_bytes == 0 and not is_at_end):  # or one endless line: cut, but shown
        num_bytes = len(content)
    return content[:num_bytes].decode("utf-8", "replace").splitlines(), num_bytes


def _heading(job: Job) -> str:
    return f"==> {job.kind} {job.id} ({job.status})"
