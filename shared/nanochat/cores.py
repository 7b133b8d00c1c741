"""How many cores this process may use, so that whoever shares out threads counts the same; and what they are called.

Torch-free.
"""

import os
import platform
from pathlib import Path

# A container's quota (control groups, version 2) as "<microseconds> <period>", or "max <period>".
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_CPU_INFO = Path("/proc/cpuinfo")


def usable_cores() -> int:
    """Those of the process's affinity that its container's quota pays for in full; at least 1.

    A part of a core is not counted: a thread that waits for its quota holds up all the others of a matrix product.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _CPU_QUOTA.read_text().split()
        limit = cores if quota == "max" else int(quota) // int(period)
    except (OSError, ValueError):  # no control groups here
        limit = cores
    return max(1, min(cores, limit))


def cpu_name() -> str:
    """The maker's name for it where the system tells it, else the architecture's."""
    if _CPU_INFO.is_file():
        for line in _CPU_INFO.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
