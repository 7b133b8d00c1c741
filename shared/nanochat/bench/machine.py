"""The machine that is measured: what it is, how fast it multiplies and reads, and what others took of it meanwhile."""

import os
import time
from dataclasses import dataclass

import psutil
import torch

from nanochat.cores import cpu_name, usable_cores

# Large enough that reading the matrices costs nothing beside multiplying them, small enough for a fifth of a second.
PRODUCT_SIZE = 2048
# Many times any cache: what is read comes from memory.
READ_SIZE_BYTES = 2**30


@dataclass(frozen=True, kw_only=True)
class Machine:
    cpu: str
    cores: int  # that this process may use
    num_threads: int  # that torch was told to use
    torch: str


def describe() -> Machine:
    return Machine(cpu=cpu_name(), cores=usable_cores(), num_threads=torch.get_num_threads(), torch=torch.__version__)


def product_flops(size: int = PRODUCT_SIZE, trials: int = 2) -> float:
    """FLOP/s of a float32 product of square matrices, the best of a few."""
    a, b, out = torch.randn(size, size), torch.randn(size, size), torch.empty(size, size)
    best_s = float("inf")
    for _ in range(trials):
        start = time.perf_counter()
        torch.mm(a, b, out=out)
        best_s = min(best_s, time.perf_counter() - start)
    return 2 * size**3 / best_s


def read_bytes_per_second(size_bytes: int = READ_SIZE_BYTES, trials: int = 5) -> float:
    """How fast all threads together read memory once, in order: the sum of a float32 buffer, the best of a few."""
    buffer = torch.ones(size_bytes // 4)  # written, so that every page is memory and none is the shared page of zeros
    best_s = float("inf")
    for _ in range(trials):
        start = time.perf_counter()
        buffer.sum()
        best_s = min(best_s, time.perf_counter() - start)
    return size_bytes / best_s


class OthersWork:
    """What everything but this process takes of the cores from now on; a hypervisor's share counts."""

    def __init__(self) -> None:
        self.load_average = os.getloadavg()[0]  # of the minute before
        self._start_s, self._taken_before_s = time.monotonic(), self._taken_s()

    @property
    def cores(self) -> float:
        """The mean so far: 0.5 is half of one core."""
        return max(0.0, self._taken_s() - self._taken_before_s) / (time.monotonic() - self._start_s)

    def _taken_s(self) -> float:
        system, own = psutil.cpu_times(), psutil.Process().cpu_times()
        # A guest's time is in user and nice already. Not every system has these fields.
        not_taken_s = sum(getattr(system, name, 0.0) for name in ("idle", "iowait", "guest", "guest_nice"))
        # Children that have ended belong to the measurement: peers are started by it.
        ours_s = own.user + own.system + own.children_user + own.children_system
        return sum(system) - not_taken_s - ours_s
