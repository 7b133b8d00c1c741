"""What torchrun does to a recipe, without torch: ranks in sessions of their own, exit code 1 with a report."""

import os
import signal
import subprocess
import sys
import time


def main(arguments: list[str]) -> int:
    num_processes = next(int(part.partition("=")[2]) for part in arguments if part.startswith("--nproc_per_node"))
    command = arguments[arguments.index("-m") :]
    ranks = [
        subprocess.Popen(
            [sys.executable, *command],
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": str(num_processes)},
            start_new_session=True,
        )
        for rank in range(num_processes)
    ]
    while all(rank.poll() is None for rank in ranks) or any(rank.poll() == 0 for rank in ranks):
        if all(rank.poll() == 0 for rank in ranks):
            return 0
        time.sleep(0.02)
    broken = next(rank for rank in ranks if rank.poll())
    print(f"  exitcode  : {broken.returncode} (pid: {broken.pid})", flush=True)
    for rank in ranks:
        if rank.poll() is None:
            rank.send_signal(signal.SIGTERM)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
