"""The lines of jobs/<id>/progress.jsonl: what a recipe tells worker and report, append-only, one JSON object a line.

A recipe writes the file and knows nothing of Redis or the database, so it runs by hand as well.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from nanochat.protocol import Strict


class Progress(Strict):
    """How far the job is. `step` counts from 0 to `num_steps`; `tokens` are those processed so far."""

    type: Literal["progress"] = "progress"
    time: float
    step: int
    num_steps: int
    tokens: int = 0
    tokens_per_second: float = 0.0
    eta_s: float | None = None

    @property
    def ratio(self) -> float:
        return min(1.0, self.step / self.num_steps) if self.num_steps else 0.0


class Metric(Strict):
    """Values measured at a step: train_loss, val_bpb, core_metric, spelling_accuracy, ..."""

    type: Literal["metric"] = "metric"
    time: float
    step: int
    values: dict[str, float]


class Environment(Strict, frozen=True):
    """What a run runs on and which code runs: for people who read its report. `num_cores` are those that all ranks may
    use, `memory_bytes` that of a GPU, or of the machine. `commit` is git's, with "-dirty" where files had changed; null
    where the code lies in no repository."""

    version: str
    commit: str | None = None
    python: str
    torch: str
    system: str
    device_name: str
    num_ranks: int
    num_cores: int
    memory_bytes: int


class Setup(Strict):
    """What a run computes with: cuda, cpu or mps; fp32, bf16, fp16 or fp8; backends of attention (model/attention.py)
    over whole rows and under a window, "none" where the model has none. Each from a small set: they label a metric.

    The model's size, and the environment, are null in files of earlier versions."""

    type: Literal["setup"] = "setup"
    time: float
    device: str
    precision: str
    attention: str
    window_attention: str
    num_parameters: int | None = None
    flops_per_token: int | None = None
    environment: Environment | None = None


class Sample(Strict):
    """What the model said to a prompt at a step, as it was generated: any text at all, markup included."""

    type: Literal["sample"] = "sample"
    time: float
    step: int
    prompt: str
    text: str


class CheckpointWritten(Strict):
    """A complete checkpoint: its id is its path under $NANOCHAT_HOME/checkpoints, as run/stage/step_000500."""

    type: Literal["checkpoint"] = "checkpoint"
    time: float
    step: int
    checkpoint: str


class Failure(Strict):
    """The recipe's own word for why it ends: the error's code and message."""

    type: Literal["failure"] = "failure"
    time: float
    code: str
    message: str


class Result(Strict):
    """The last line of a job that succeeded. `output` is what other jobs get when they name this one:
    a tokenizer's name, a checkpoint's id, a dataset's name; null where the job makes none (evaluate)."""

    type: Literal["result"] = "result"
    time: float
    output: str | None
    values: dict[str, float] = Field(default_factory=dict)


Line = Progress | Metric | Setup | Sample | CheckpointWritten | Failure | Result
progress_line: TypeAdapter[Line] = TypeAdapter(Annotated[Line, Field(discriminator="type")])


def readable_lines(path: Path) -> Iterator[Line]:
    """Every line of a file that can be read: a killed recipe's last one may be half a one. None where there is no file.

    For whoever looks at a run from outside; the worker, which must know what it passes over, has a reader of its own.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        for raw in file:
            try:
                yield progress_line.validate_json(raw)
            except ValidationError:
                continue
