"""Which code a run is, and which machine it runs on: what its report says so that its numbers can be had again.

What it computes with (precision, attention) is device.py's.
"""

import logging
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

from nanochat.cores import cpu_name, usable_cores
from nanochat.model.gpt import GPT
from nanochat.protocol.progress import Environment
from nanochat.recipes.device import describe_setup
from nanochat.recipes.job import JobContext

log = logging.getLogger(__name__)

_GIT_TIMEOUT_S = 5.0


def report_setup(job: JobContext, model: GPT, sequence_len: int) -> None:
    """Tell progress.jsonl what a run computes with on rows of sequence_len tokens, and the log the short of it."""
    if not job.ranks.is_first:
        return
    setup = describe_setup(model, sequence_len)
    job.progress.setup(
        **setup,
        num_parameters=model.num_parameters(),
        flops_per_token=model.num_flops_per_token(),
        environment=describe_environment(model.device, job.ranks.world_size),
    )
    log.info("setup", extra=setup)


def describe_environment(device: torch.device, num_ranks: int) -> Environment:
    """Of ranks on devices that are all alike."""
    is_cuda = device.type == "cuda"
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Environment(
        version=version("nanochat-shared"),
        commit=commit(Path(__file__)),
        python=platform.python_version(),
        torch=torch.__version__,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        device_name=torch.cuda.get_device_name(device) if is_cuda else cpu_name(),
        num_ranks=num_ranks,
        num_cores=usable_cores(),
        memory_bytes=torch.cuda.get_device_properties(device).total_memory if is_cuda else memory_bytes,
    )


def commit(file: Path) -> str | None:
    """That of the repository which a source file belongs to; one that merely lies inside, in an environment of
    somebody else's project, belongs to none."""
    if _git(file, "ls-files", "--error-unmatch", file.name) is None:
        return None
    return _git(file, "describe", "--always", "--exclude=*", "--abbrev=12", "--dirty")


def _git(file: Path, *arguments: str) -> str | None:
    """What git says, without taking locks that a person's own git may want; None where it fails or is not there."""
    command = ["git", "--no-optional-locks", "-C", str(file.parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
