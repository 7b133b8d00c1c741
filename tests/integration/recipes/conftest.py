"""A dataset of generated text, and jobs run from their specs: in this process, by hand, or under torchrun."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat.protocol.jobs import JobKind, RunSpec
from nanochat.protocol.progress import CheckpointWritten, Failure, Line, Result, progress_line
from nanochat.recipes.__main__ import run_job
from nanochat.recipes.job import progress_path
from nanochat.recipes.progress import ProgressWriter
from nanochat.recipes.stop import StopSignal

# The smallest model and the shortest run that still go through every part.
_PRETRAIN: dict[str, Any] = {
    "depth": 2,
    "aspect_ratio": 16,
    "head_dim": 16,
    "max_seq_len": 128,
    "device_batch_size": 4,
    "total_batch_size": 512,
    "num_iterations": 8,
    "eval_tokens": 2048,
    "compile": False,
    "weight_decay": 0.0,
    "batch_lr_factor": False,
    "lr_scale": 0.3,
}
_SFT: dict[str, Any] = {
    "mixture": [{"task": "spelling", "stop": 300}, {"task": "dialogue", "stop": 100}],
    "num_iterations": 8,
    "eval_tokens": 2048,
    "compile": False,
}
_RL: dict[str, Any] = {
    "task": "counting",
    "examples_per_step": 4,
    "num_samples": 4,
    "max_new_tokens": 12,
    "num_iterations": 6,
    "device_batch_size": 8,
    "eval_every": 0,
    "eval_examples": 2,
    "eval_samples": 2,
}
_TEXT = "the small model reads a text and learns which word comes next after all that it has seen so far"


@dataclass(frozen=True)
class Ran:
    """A job that has ended, and what it wrote."""

    exit_code: int
    lines: list[Line]

    @property
    def result(self) -> Result:
        assert self.exit_code == 0 and isinstance(self.lines[-1], Result), self.lines[-3:]
        return self.lines[-1]

    @property
    def failure(self) -> Failure:
        """The only one, and the last word."""
        assert self.exit_code == 1
        assert [type(line) for line in self.lines].count(Failure) == 1
        assert isinstance(self.lines[-1], Failure)
        return self.lines[-1]

    @property
    def checkpoints(self) -> list[str]:
        return [line.checkpoint for line in self.lines if isinstance(line, CheckpointWritten)]


class Workshop:
    """A home with a dataset in it, and the making and running of specs."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.dataset = write_dataset(home / "datasets" / "sentences")

    def spec(self, kind: JobKind, name: str, config: dict[str, Any], *, attempt: int = 1) -> RunSpec:
        return RunSpec(
            job_id=f"job_{kind}_{name}", kind=kind, name=name, config=config, home=str(self.home), attempt=attempt
        )

    def tokenizer(self, name: str = "tok", **config: Any) -> RunSpec:
        return self.spec("tokenizer", name, {"dataset": str(self.dataset), "vocab_size": 280, **config})

    def pretrain(self, name: str = "base", *, attempt: int = 1, **config: Any) -> RunSpec:
        references = {"dataset": str(self.dataset), "tokenizer": str(self.home / "tokenizers" / "tok")}
        return self.spec("pretrain", name, {**references, **_PRETRAIN, **config}, attempt=attempt)

    def sft(self, name: str = "chat", *, attempt: int = 1, **config: Any) -> RunSpec:
        base = str(self.home / "checkpoints" / "base" / "pretrain" / "step_000008")
        return self.spec("sft", name, {"checkpoint": base, **_SFT, **config}, attempt=attempt)

    def rl(self, name: str = "better", *, attempt: int = 1, **config: Any) -> RunSpec:
        base = str(self.home / "checkpoints" / "base" / "pretrain" / "step_000008")
        return self.spec("rl", name, {"checkpoint": base, **_RL, **config}, attempt=attempt)

    def evaluate(self, name: str = "judge", *, checkpoint: str = "base/pretrain/step_000008", **config: Any) -> RunSpec:
        folder = str(self.home / "checkpoints" / checkpoint)
        return self.spec("evaluate", name, {"checkpoint": folder, "max_per_task": 2, "eval_tokens": 2048, **config})

    def run(self, spec: RunSpec, stop: StopSignal | None = None) -> Ran:
        """In this process, as __main__ does after reading the spec."""
        num_before = len(self.lines(spec))
        with ProgressWriter(progress_path(spec)) as progress:
            exit_code = run_job(spec, progress, stop or StopSignal())
        return Ran(exit_code, self.lines(spec)[num_before:])

    def start(
        self,
        spec: RunSpec,
        *,
        ranks: int | None = None,
        options: Sequence[str] = (),
        module: str = "nanochat.recipes",
    ) -> subprocess.Popen[str]:
        """In a process of its own, or under torchrun in as many as `ranks`; standard error holds the log."""
        file = self.home / f"{spec.name}.json"
        file.write_text(spec.model_dump_json())
        options = [*(options or ["--standalone"]), f"--nproc_per_node={ranks}", f"--log-dir={os.devnull}"]
        launcher = ["-m", "torch.distributed.run", *options] if ranks else []
        command = [sys.executable, *launcher, "-m", module, spec.kind, "--spec", str(file)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def run_ranks(self, spec: RunSpec, ranks: int) -> Ran:
        num_before = len(self.lines(spec))
        ran = self.finish(spec, self.start(spec, ranks=ranks))
        return Ran(ran.exit_code, ran.lines[num_before:])

    def finish(self, spec: RunSpec, process: subprocess.Popen[str]) -> Ran:
        output, _ = process.communicate(timeout=120)
        print(output)
        return Ran(process.returncode, self.lines(spec))

    def lines(self, spec: RunSpec) -> list[Line]:
        path = progress_path(spec)
        text = path.read_text() if path.exists() else ""
        return [progress_line.validate_json(line) for line in text.splitlines()]

    def state(self, checkpoint: str) -> dict[str, Any]:
        state: dict[str, Any] = json.loads((self.home / "checkpoints" / checkpoint / "state.json").read_text())
        return state


def write_dataset(folder: Path, *, column: str = "text", num_documents: int = 240, num_shards: int = 3) -> Path:
    """Sentences of a few words, in shards of several row groups."""
    rng = random.Random(0)
    folder.mkdir(parents=True)
    for shard in range(num_shards):
        documents = [
            " ".join(rng.choices(_TEXT.split(), k=rng.randint(5, 80))).capitalize() + "."
            for _ in range(num_documents // num_shards)
        ]
        pq.write_table(pa.table({column: documents}), folder / f"shard_{shard:05d}.parquet", row_group_size=20)
    return folder


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """With tokenizer "tok" and the pretrained run "base" in it. Tests take names of their own for what they make."""
    workshop = Workshop(tmp_path_factory.mktemp("workshop"))
    assert workshop.run(workshop.tokenizer()).result.output == "tok"
    assert workshop.run(workshop.pretrain()).result.output == "base/pretrain/step_000008"
    return workshop
