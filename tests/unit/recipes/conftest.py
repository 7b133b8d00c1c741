"""A job without a worker: its context, with a home in a temporary folder and a progress file that can be read back."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nanochat.protocol.jobs import RunSpec
from nanochat.recipes import next_token
from nanochat.recipes.job import JobContext, progress_path
from nanochat.recipes.progress import ProgressWriter
from nanochat.recipes.training_loop import Training
from nanochat.tokenizer.bpe import Tokenizer

from .tiny_training import tiny_training


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """Of single bytes."""
    return Tokenizer([bytes([byte]) for byte in range(256)])


@pytest.fixture
def job(tmp_path: Path) -> Iterator[JobContext]:
    spec = RunSpec(job_id="job_1", kind="pretrain", name="one", config={}, home=str(tmp_path))
    with ProgressWriter(progress_path(spec)) as progress:
        yield JobContext(spec=spec, progress=progress)


@pytest.fixture
def make(job: JobContext, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Training]:
    """make(num_steps=..., save_every=..., ...) gives a run of run "one", stage "sft"."""
    monkeypatch.setattr(next_token, "peak_flops", lambda device: None)
    return functools.partial(tiny_training, job, tokenizer)
