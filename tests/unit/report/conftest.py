"""A home whose jobs are written by hand: specs, lines, checkpoints of a model of no size."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from nanochat.checkpoint import manifest
from nanochat.config import GPTConfig
from nanochat.protocol.jobs import JobKind, RunSpec
from nanochat.protocol.progress import (
    CheckpointWritten,
    Environment,
    Failure,
    Line,
    Metric,
    Progress,
    Result,
    Sample,
    Setup,
)

CONFIG = GPTConfig(n_layer=1, n_head=1, n_kv_head=1, n_embd=64, vocab_size=300)
FLOPS_PER_TOKEN = 1000
ENVIRONMENT = Environment(
    version="0.1.0",
    commit="0123456789ab",
    python="3.11.7",
    torch="2.13.0",
    system="Linux 6.1 x86_64",
    device_name="NVIDIA H100 80GB HBM3",
    num_ranks=8,
    num_cores=64,
    memory_bytes=80 * 2**30,
)


class Home:
    """`path` is $NANOCHAT_HOME."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def job(self, kind: JobKind, name: str, lines: Sequence[Line], **config: Any) -> RunSpec:
        """A job that has said these lines; its id tells kind and name, as sorting does not matter here."""
        spec = RunSpec(job_id=f"job_{kind}_{name}", kind=kind, name=name, config=config, home=str(self.path))
        folder = self.folder(spec)
        folder.mkdir(parents=True)
        (folder / "spec.json").write_text(spec.model_dump_json())
        (folder / "progress.jsonl").write_text("".join(line.model_dump_json() + "\n" for line in lines))
        return spec

    def folder(self, spec: RunSpec) -> Path:
        return self.path / "jobs" / spec.job_id

    def checkpoint(self, run: str, stage: str, step: int, **state: Any) -> str:
        folder = manifest.checkpoints_dir(self.path) / manifest.checkpoint_id(run, stage, step)
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(CONFIG.to_dict()))
        (folder / "state.json").write_text(json.dumps(state))
        manifest.write(folder, run=run, stage=stage, step=step, created=float(step))
        return manifest.checkpoint_id(run, stage, step)


@pytest.fixture
def made(tmp_path: Path) -> Home:
    return Home(tmp_path)


def setup(time: float, environment: Environment | None = ENVIRONMENT) -> Setup:
    return Setup(
        time=time,
        device="cuda",
        precision="bf16",
        attention="flash3",
        window_attention="flash3",
        num_parameters=12345,
        flops_per_token=FLOPS_PER_TOKEN,
        environment=environment,
    )


def progress(time: float, step: int, num_steps: int = 10) -> Progress:
    return Progress(time=time, step=step, num_steps=num_steps, tokens=100 * step, tokens_per_second=50.0 + step)


def metric(time: float, step: int, **values: float) -> Metric:
    return Metric(time=time, step=step, values=values)


def training(
    first: int = 0, last: int = 10, *, start: float = 1000.0, ends: Sequence[Line] | None = None
) -> list[Line]:
    """Ten seconds a step from `first` to `last`: a falling loss, validation at every fifth step, and an end."""
    lines: list[Line] = [setup(start)]
    for step in range(first, last + 1):
        time = start + 10 * (step - first)
        lines.append(progress(time, step))
        if step % 5 == 0:
            lines.append(metric(time, step, val_bpb=2.0 - step / 100))
        if step < last:
            lines.append(metric(time, step, train_loss=5.0 - step / 10, learning_rate=0.02 - step / 1000))
    if ends is None:
        ends = [Result(time=start + 10 * (last - first), output="any")]
    return [*lines, *ends]


def failure(time: float, message: str = "the shard is broken.") -> Failure:
    return Failure(time=time, code="data_error", message=message)


def sample(time: float, step: int, prompt: str, text: str) -> Sample:
    return Sample(time=time, step=step, prompt=prompt, text=text)


def written(time: float, step: int, checkpoint: str) -> CheckpointWritten:
    return CheckpointWritten(time=time, step=step, checkpoint=checkpoint)
