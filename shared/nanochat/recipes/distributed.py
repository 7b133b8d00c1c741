"""Which of how many processes this one is, and how they come together: the only reader of what torchrun sets.

What they then say to each other is nanochat.collectives. torch is imported where ranks meet and not before, as training
a tokenizer needs none.
"""

import contextlib
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from pydantic_settings import BaseSettings

from nanochat.errors import InvalidConfig, PeerLost
from nanochat.recipes.stop import Stopped

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

    from nanochat.collectives import Peers

# A rank that has died is noticed at once; this is for one that lives and does not come. Longer than any evaluation
# or checkpoint for which the others wait.
TIMEOUT = timedelta(hours=1)
MEETING_S = 120.0  # for rank 0 to come, once torchrun has started all
_PLACE, _TOKEN = "nanochat/place", "nanochat/token"
_BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}


class _TorchrunSettings(BaseSettings):
    """torchrun's own variables, which have no prefix. Without torchrun: one process."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    master_addr: str = "localhost"
    torchelastic_run_id: str | None = None
    torchelastic_max_restarts: int = 0


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """`rank` of `world_size`; `local_rank` counts on this machine and chooses the device.

    `may_be_restarted`: torchrun starts all ranks again when one is lost, and does not say to all that it did.
    """

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    may_be_restarted: bool = False

    @property
    def is_first(self) -> bool:
        return self.rank == 0


def read_ranks() -> Ranks:
    found = _TorchrunSettings()
    return Ranks(
        rank=found.rank,
        local_rank=found.local_rank,
        world_size=found.world_size,
        may_be_restarted=found.torchelastic_max_restarts > 0,
    )


def is_under_torchrun() -> bool:
    return _TorchrunSettings().torchelastic_run_id is not None


def require_one(ranks: Ranks, kind: str) -> None:
    """Raises InvalidConfig for a kind of job that several processes cannot share."""
    if ranks.world_size > 1:
        raise InvalidConfig(
            f"num_processes is {ranks.world_size}, and a job of kind {kind} runs on one; give 1.",
            param="num_processes",
        )


@contextmanager
def joined(ranks: Ranks, device_type: str) -> "Iterator[Peers]":
    """All ranks together, while the block runs: gloo between CPUs, NCCL between GPUs with gloo for what is on the CPU.

    Raises InvalidConfig for a device whose tensors cannot be sent, PeerLost where the others do not come.
    """
    from torch import distributed

    from nanochat.collectives import ALONE, Peers

    if ranks.world_size == 1:
        yield ALONE
        return
    if device_type not in _BACKENDS:
        raise InvalidConfig(
            f"num_processes is {ranks.world_size}, and device {device_type} trains with one; give 1, "
            "or set NANOCHAT_DEVICE to cpu.",
            param="num_processes",
        )
    try:
        distributed.init_process_group(
            _BACKENDS[device_type],
            store=_meet(ranks),
            rank=ranks.rank,
            world_size=ranks.world_size,
            timeout=TIMEOUT,
        )
    except RuntimeError as exc:
        raise PeerLost(f"the {ranks.world_size} ranks of this run did not come together: {exc}") from exc
    try:
        yield Peers(rank=ranks.rank, world_size=ranks.world_size)
    except Stopped:
        distributed.destroy_process_group()
        raise
    # Not after an error: it would wait for a rank that is gone.
    distributed.destroy_process_group()


def _meet(ranks: Ranks) -> "Store":
    """A store that only these ranks have seen, in rank 0's process; torchrun's tells the others where it is.

    torchrun's own outlives the ranks: those that were started again would find in it the addresses of the dead.
    """
    from torch._C._distributed_c10d import TCPStore  # where torch declares its type
    from torch.distributed import DistError
    from torch.distributed.rendezvous import rendezvous

    known, _, _ = next(rendezvous("env://", ranks.rank, ranks.world_size, timeout=TIMEOUT))
    host = _TorchrunSettings().master_addr
    if ranks.is_first:
        store = TCPStore(host, 0, ranks.world_size, is_master=True, timeout=TIMEOUT, wait_for_workers=False)
        token = secrets.token_hex(8)
        store.set(_TOKEN, token)
        known.set(_PLACE, f"{store.port} {token}")
        return store
    deadline = time.monotonic() + MEETING_S
    while True:
        port, token = known.get(_PLACE).decode().split()
        # Until the new rank 0 says where it is, this is the place of one that is gone.
        with contextlib.suppress(OSError, DistError):
            socket.create_connection((host, int(port)), timeout=5.0).close()
            found = TCPStore(host, int(port), ranks.world_size, timeout=TIMEOUT, wait_for_workers=False)
            if found.get(_TOKEN).decode() == token:
                return found
        if time.monotonic() > deadline:
            raise PeerLost(f"rank 0 does not answer on port {port} of {host}; let ranks reach each other there.")
        time.sleep(0.1)
