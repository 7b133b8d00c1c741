"""jobs/<id>/log.txt, whole or its end. The worker writes it; a job that never ran has none."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from nanochat.protocol.jobs import Job

_BLOCK_BYTES = 64 * 1024


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


def new_lines(path: Path, offset: int, limit_bytes: int = 256 * 1024) -> tuple[list[str], int]:
    """Whole lines from byte `offset` on, at most `limit_bytes`, and the offset behind them."""
    if not path.is_file():
        return [], offset
    with path.open("rb") as file:
        file.seek(offset)
        content = file.read(limit_bytes)
    end = content.rfind(b"\n") + 1
    if end == 0 and len(content) == limit_bytes:  # one endless line: cut it rather than never show it
        end = len(content)
    return content[:end].decode("utf-8", "replace").splitlines(), offset + end


def _heading(job: Job) -> str:
    return f"==> {job.kind} {job.id} ({job.status})"
