"""Finds processes of a job's earlier run that outlived their supervisor, by a mark in their environment, and ends them.

The supervisor ends the tree in every ordinary case, the killed worker included; this is for the day when the supervisor
is killed too. Without it two runs could write into the same folder.
"""

import contextlib
import logging
import time

import psutil

log = logging.getLogger(__name__)

# In the environment of every process of a run; its value is the job's id.
MARK = "NANOCHAT_RUN_OF_JOB"
PATIENCE_S = 5.0


def end_leftovers(job_id: str) -> None:
    """SIGKILL to every process of this machine that carries the job's mark. Looks again until there is none."""
    deadline = time.monotonic() + PATIENCE_S
    while (left := _marked(job_id)) and time.monotonic() < deadline:
        log.warning("leftover_processes_killed", extra={"job_id": job_id, "num_processes": len(left)})
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=1.0)


def _marked(job_id: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            if process.environ().get(MARK) == job_id and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
