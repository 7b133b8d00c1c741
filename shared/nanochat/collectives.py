"""What the processes that train together say to each other: averages and parts of tensors, numbers, short texts.

torch.distributed's calls under gloo and NCCL, each with its answer for one process, which says nothing. Who belongs to
the group, and how it comes together, is recipes/distributed.py. Every call here must be made by all ranks, in the same
order; texts cross as bytes, as torch's own calls for objects would pickle them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from nanochat.errors import PeerLost


class Pending:
    """A transfer that goes on while other work is done; its tensors are not to be touched before wait()."""

    def __init__(self, work: Any = None) -> None:
        self._work = work

    def wait(self) -> None:
        """On CUDA only the stream waits. Raises PeerLost."""
        if self._work is not None:
            try:
                self._work.wait()
            except RuntimeError as exc:
                raise _lost(exc) from exc


@dataclass(frozen=True, kw_only=True)
class Peers:
    """`rank` of `world_size` in a process group (None: the default one). One process needs none."""

    rank: int = 0
    world_size: int = 1
    group: dist.ProcessGroup | None = None

    @property
    def is_alone(self) -> bool:
        return self.world_size == 1

    def start_mean(self, tensor: Tensor) -> Pending:
        """Each rank's tensor becomes the average of all."""
        if self.is_alone:
            return Pending()
        return self._start(dist.all_reduce, tensor, op=dist.ReduceOp.AVG)

    def start_mean_part(self, part: Tensor, whole: Tensor) -> Pending:
        """part (n / world_size, ...) becomes this rank's rows of the average of all ranks' whole (n, ...)."""
        return self._start(dist.reduce_scatter_single, part, whole, op=dist.ReduceOp.AVG)

    def start_gather(self, whole: Tensor, part: Tensor) -> Pending:
        """whole (n, ...) becomes all ranks' parts (n / world_size, ...), one after the other."""
        return self._start(dist.all_gather_single, whole, part)

    def sum(self, values: Sequence[float]) -> list[float]:
        """Each value summed over the ranks, in float64 on the CPU: every rank gets the same bits."""
        return list(values) if self.is_alone else self._reduced(values, dist.ReduceOp.SUM)

    def any(self, flag: bool) -> bool:
        """Whether any rank says so."""
        return flag if self.is_alone else bool(self._reduced([float(flag)], dist.ReduceOp.MAX)[0])

    def apart(self) -> "Peers":
        """The same ranks in a group of their own, on the CPU, so that another thread may speak while this one does."""
        return self if self.is_alone else replace(self, group=dist.new_group(backend="gloo"))

    def texts(self, text: str) -> list[str]:
        """Every rank's text, by rank."""
        if self.is_alone:
            return [text]
        content = text.encode()
        longest = int(self._reduced([float(len(content))], dist.ReduceOp.MAX)[0])
        # Padded with zero bytes, which no JSON and no path has.
        mine = torch.frombuffer(bytearray(content.ljust(longest + 1, b"\0")), dtype=torch.uint8)
        whole = torch.empty(self.world_size * len(mine), dtype=torch.uint8)
        self.start_gather(whole, mine).wait()
        return [bytes(row.tolist()).rstrip(b"\0").decode() for row in whole.view(self.world_size, -1)]

    def first(self, text: str) -> str:
        """Rank 0's text, on every rank."""
        return self.texts(text if self.rank == 0 else "")[0]

    def _reduced(self, values: Sequence[float], op: Any) -> list[float]:
        tensor = torch.tensor(values, dtype=torch.float64)
        self._start(dist.all_reduce, tensor, op=op).wait()
        return [float(value) for value in tensor]

    def _start(self, call: Any, *tensors: Tensor, **options: Any) -> Pending:
        try:
            return Pending(call(*tensors, group=self.group, async_op=True, **options))
        except RuntimeError as exc:
            raise _lost(exc) from exc


ALONE = Peers()


def _lost(exc: RuntimeError) -> PeerLost:
    reason = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
    return PeerLost(f"another rank of this run has ended or does not answer ({reason}). Its own log lines say why.")
