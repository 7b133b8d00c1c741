"""Starts a job's run: writes jobs/<id>/spec.json, opens log.txt, and has the supervisor start torchrun."""

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nanochat.cores import usable_cores
from nanochat.files import write_file
from nanochat.protocol.jobs import Job, RunSpec
from nanochat_worker.leftovers import MARK, end_leftovers
from nanochat_worker.settings import WorkerSettings

LOG_TAIL_LINES = 30
_TAIL_BYTES = 64 * 1024


class Run:
    """A started run. Close it, or use it in `with`: closing the pipe ends whatever is left of the tree."""

    def __init__(self, process: subprocess.Popen[bytes], log_file: Path, log_start: int, job_id: str) -> None:
        self._process = process
        self._log_file = log_file
        self._log_start = log_start
        self._job_id = job_id

    def poll(self) -> int | None:
        """The run's exit status once all of its processes have ended; negative when the supervisor was killed."""
        return self._process.poll()

    def stop(self) -> None:
        """Ask for the end: SIGTERM, grace, SIGKILL to the whole tree. Returns at once; poll() tells when it is over."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b"stop\n")
            self._process.stdin.flush()
        except BrokenPipeError:  # it has ended by itself
            pass

    def close(self, timeout_s: float) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.returncode < 0:  # the supervisor was killed, so nobody has cleared up behind it
            end_leftovers(self._job_id)

    def log_tail(self) -> list[str]:
        """The last lines of this attempt's output."""
        with self._log_file.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self._log_start, size - _TAIL_BYTES))
            return file.read().decode("utf-8", "replace").splitlines()[-LOG_TAIL_LINES:]


def job_folder(home: Path, job_id: str) -> Path:
    return home / "jobs" / job_id


def launch(job: Job, config: dict[str, Any], settings: WorkerSettings) -> Run:
    """Start the run of a claimed job, whose references are resolved in `config`. Raises OSError.

    What may be left of an earlier run of this job on this machine is ended first.
    """
    end_leftovers(job.id)
    home = settings.common.home_dir
    folder = job_folder(home, job.id)
    spec = RunSpec(job_id=job.id, kind=job.kind, name=job.name, config=config, home=str(home), attempt=job.attempt)
    write_file(folder / "spec.json", spec.model_dump_json(indent=2).encode())
    log_file = folder / "log.txt"
    with log_file.open("ab") as log:
        if job.attempt > 1:
            log.write(f"==> attempt {job.attempt}, {datetime.now(UTC).isoformat(timespec='seconds')}\n".encode())
            log.flush()
        log_start = log.tell()
        process = subprocess.Popen(
            _command(job, folder / "spec.json", settings),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_environment(job, settings),
            start_new_session=True,  # signals of a terminal or a container reach the worker alone, which stops in order
        )
    return Run(process, log_file, log_start, job.id)


def _command(job: Job, spec_file: Path, settings: WorkerSettings) -> list[str]:
    supervisor = ["-m", "nanochat_worker.supervisor", str(settings.stop_grace_s), str(settings.lost_grace_s), "--"]
    # What ranks say goes to log.txt; torchrun would leave a folder of nothing in the temporary one after every run.
    options = ["--standalone", f"--nproc_per_node={job.num_processes}", f"--log-dir={os.devnull}"]
    torchrun = ["-m", settings.torchrun, *options]
    recipe = ["-m", settings.recipes, job.kind, "--spec", str(spec_file)]
    return [sys.executable, *supervisor, sys.executable, *torchrun, *recipe]


def _environment(job: Job, settings: WorkerSettings) -> dict[str, str]:
    """The worker's own environment, passed on, with the cores shared out: torchrun would give each rank one thread.

    Threads that wait for each other soon sleep instead of spinning on: where something else runs on the machine too,
    spinning was measured to cost training more than half its speed. GNU's OpenMP, which torch's wheels bring, may spin
    for some tenths of a millisecond first: on free cores that is a tenth faster than none.
    """
    threads = settings.threads or max(1, usable_cores() // job.num_processes)
    return {
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "30000",
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "PYTHONUNBUFFERED": "1",
        MARK: job.id,
    }
