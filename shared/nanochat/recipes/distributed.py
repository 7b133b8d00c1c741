"""Which of how many processes this one is: the only reader of what torchrun sets in the environment.

One process trains at present; more are refused, so that nobody waits for a speed-up that does not come.
"""

from dataclasses import dataclass

from pydantic_settings import BaseSettings

from nanochat.errors import InvalidConfig


class _TorchrunSettings(BaseSettings):
    """torchrun's own variables, which have no prefix. Without torchrun: one process."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    torchelastic_run_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """`rank` of `world_size`; `local_rank` counts on this machine and chooses the device."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1


def read_ranks() -> Ranks:
    """Raises InvalidConfig when torchrun started more than one process."""
    found = _TorchrunSettings()
    if found.world_size != 1:
        raise InvalidConfig(
            f"num_processes is {found.world_size}; training runs on one process. Submit the job with num_processes 1.",
            param="num_processes",
        )
    return Ranks(rank=found.rank, local_rank=found.local_rank, world_size=found.world_size)


def is_under_torchrun() -> bool:
    return _TorchrunSettings().torchelastic_run_id is not None
