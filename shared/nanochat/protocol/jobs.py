"""A job as REST, CLI and recipes see it: its kinds, the config of each kind, the states it goes through.

Config keys are the seed's flags with underscores. A null means "worked out from the rest" (the model's depth, the
horizon, the hardware), and the recipe logs what it worked out.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from nanochat.errors import InvalidConfig
from nanochat.protocol import Strict
from nanochat.protocol.complaint import invalid_config
from nanochat.protocol.hub import SCHEME, HubReference

JobKind = Literal["tokenizer", "pretrain", "sft", "rl", "evaluate", "pipeline", "dataset", "report"]
JobStatus = Literal["queued", "running", "succeeded", "failed", "cancelled"]
FINAL_STATUSES: frozenset[str] = frozenset({"succeeded", "failed", "cancelled"})


def _not_a_job_id(name: str) -> str:
    if name.startswith("job_"):
        raise PydanticCustomError("reserved_name", "names that begin with 'job_' stand for jobs; choose another")
    return name


# A name is a folder's name too: no separators, no leading dot. A reference that begins with job_ is a job's id.
MAX_NAME_LENGTH = 100
Name = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=MAX_NAME_LENGTH), AfterValidator(_not_a_job_id)
]
# A name, a job's id, a checkpoint's id (run/stage/step_000500) or an absolute path; resolved by references.py.
Reference = Annotated[str, Field(min_length=1, max_length=4096)]
Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Ratio = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class MixtureItem(Strict):
    """One source of conversations: a task by name, or a JSONL file (or folder of them) by path.

    `epochs` lists it that many times; `stop` takes its first examples only; `split` is a benchmark's split, as
    published, that is taken instead of the one it trains on.
    """

    task: str | None = None
    file: Reference | None = None
    epochs: Annotated[int, Field(ge=1, le=1000)] = 1
    stop: Positive | None = None
    split: Name | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "MixtureItem":
        if (self.task is None) == (self.file is None):
            raise ValueError("give exactly one of task and file")
        if self.split is not None and self.task is None:
            raise ValueError("split is for tasks; a file has none")
        return self


class TokenizerConfig(Strict):
    """Train a byte-level BPE. vocab_size includes the nine special tokens.

    What conversations of `mixture` say is read after the dataset's text: a small vocabulary needs their words too.
    """

    dataset: Reference = "climbmix"
    mixture: list[MixtureItem] = Field(default=[], max_length=1000)
    vocab_size: int = Field(default=32768, ge=265, le=1_000_000)
    max_chars: Positive = 2_000_000_000
    doc_cap: Positive = Field(default=10_000, description="Characters taken of one document at most.")


class ResumableConfig(Strict):
    resume: bool = Field(default=False, description="Go on from the newest complete checkpoint of this run and stage.")
    resume_from: Reference | None = Field(
        default=None,
        description="Go on from this checkpoint, such as d12/pretrain/step_000500, in a run of another name, or where "
        "it is the run's newest.",
    )


class OptimizerConfig(Strict):
    """Base learning rates, before the width factor. Null: the table's (pretrain, rl), or the base run's (sft)."""

    embedding_lr: Rate | None = None
    unembedding_lr: Rate | None = None
    matrix_lr: Rate | None = None
    scalar_lr: Rate | None = None
    weight_decay: Rate | None = None


class TrainingConfig(OptimizerConfig, ResumableConfig):
    """What pretrain and sft share."""

    run: Name | None = Field(default=None, description="Folder under checkpoints/; null: the job's name.")
    max_seq_len: Annotated[int, Field(ge=16, le=1_048_576)] | None = None
    device_batch_size: Positive | None = None
    total_batch_size: Positive | None = Field(default=None, description="Tokens a step.")
    num_iterations: Positive | None = None
    lr_scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=1.0, description="Multiplies every AdamW learning rate."
    )
    batch_lr_factor: bool | None = Field(
        default=None, description="Scale rates by sqrt(batch / B_ref); null: the stage's."
    )
    final_lr_frac: Ratio | None = None
    precision: Literal["auto", "fp32", "bf16", "fp16", "fp8"] = "auto"
    tracker: Literal["none", "wandb", "trackio"] = Field(
        default="none", description="Where metrics are sent besides progress.jsonl; its package must be installed."
    )
    compile: bool | None = Field(default=None, description="torch.compile; null: where a C++ compiler exists.")
    seed: Seed = 42
    eval_every: int = Field(default=250, ge=0, description="Steps between evaluations; 0: at the end only.")
    eval_tokens: Positive = 20 * 524_288
    save_every: int = Field(default=0, ge=0, description="Steps between checkpoints; 0: at the end only.")
    keep_last: Positive | None = Field(
        default=None,
        description="So many of the newest checkpoints stay, and the best by val_bpb, those that are served and those "
        "that other runs begin with; null: all.",
    )


class PretrainConfig(TrainingConfig):
    dataset: Reference = "climbmix"
    tokenizer: Reference = "default"
    depth: int = Field(default=12, ge=1, le=256)
    aspect_ratio: int = Field(default=64, ge=1, le=1024)
    head_dim: int = Field(default=128, ge=2, le=1024)
    window_pattern: str = Field(default="SSSL", pattern=r"^[SL]{1,256}$")
    target_flops: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    target_param_data_ratio: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 12.0
    warmup_steps: int = Field(default=40, ge=0)
    warmdown_ratio: Ratio = 0.65
    muon: Literal["full", "light"] = Field(
        default="full",
        description="light: three steps of orthogonalisation in place of five, at less than half the cost.",
    )
    core_metric_every: int = Field(default=0, ge=0)
    sample_every: int = Field(default=0, ge=0)


class SftConfig(TrainingConfig):
    checkpoint: Reference
    mixture: list[MixtureItem] = Field(min_length=1, max_length=1000)
    chatcore_every: int = Field(default=0, ge=0, description="Steps between evaluations of chat tasks; 0: none.")
    chatcore_tasks: list[str] | None = Field(default=None, min_length=1, description="Null: those of an evaluation.")
    chatcore_max_per_task: Positive | None = Field(default=None, description="Examples; null: all.")


class RlConfig(OptimizerConfig, ResumableConfig):
    """Learn from the rewards of a task: sample answers, and make those likelier that are better than their question's
    others. Rates are model.md section 7's where they are not given."""

    run: Name | None = Field(default=None, description="Folder under checkpoints/; null: the job's name.")
    checkpoint: Reference
    task: str = Field(description="One whose answers can be checked.")
    examples_per_step: Positive = Field(default=16, description="Questions a step, of all processes together.")
    num_samples: int = Field(default=16, ge=2, le=1024, description="Answers to each question.")
    max_prompt_tokens: Positive = Field(default=512, description="Longer questions are passed over.")
    max_new_tokens: Positive = Field(default=256, description="Sampled tokens an answer; longer ones are cut.")
    temperature: Annotated[float, Field(ge=0.05, le=2)] = 1.0
    top_k: int = Field(default=50, ge=0, le=200, description="0: all tokens.")
    num_iterations: Positive | None = Field(default=None, description="Null: one pass over the task.")
    init_lr_frac: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] = Field(
        default=0.05, description="Multiplies every learning rate; they then go down to 0, linearly."
    )
    lr_scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=1.0, description="Multiplies every AdamW learning rate."
    )
    device_batch_size: Positive | None = Field(default=None, description="Answers at a time in training.")
    rollout_batch_size: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        default=None, description="Answers that are sampled side by side."
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    tracker: Literal["none", "wandb", "trackio"] = "none"
    seed: Seed = 42
    eval_every: int = Field(
        default=60, ge=0, description="Steps between evaluations on held-out questions; 0: at both ends only."
    )
    eval_examples: Positive = 400
    eval_samples: int = Field(
        default=8, ge=0, le=1024, description="Answers to each of them, for pass@k; 0: greedy ones alone."
    )
    save_every: int = Field(default=60, ge=0, description="Steps between checkpoints; 0: at the end only.")
    keep_last: Positive | None = Field(
        default=None,
        description="So many of the newest checkpoints stay, and the best by greedy answers to held-out questions, "
        "those that are served and those that other runs begin with; null: all.",
    )

    @model_validator(mode="after")
    def _check(self) -> "RlConfig":
        if self.top_k == 1:
            raise ValueError("top_k 1 makes all answers to a question alike, and nothing is learnt; give more, or 0")
        if self.weight_decay:
            raise ValueError("reinforcement learning has no weight decay; leave weight_decay out")
        return self


class EvaluateConfig(Strict):
    """`dataset` is for bpb (null: the one the checkpoint was trained on); `tasks` are for chat and core."""

    checkpoint: Reference
    evals: list[Literal["bpb", "core", "sample", "chat"]] = Field(default=["bpb", "sample", "chat"], min_length=1)
    dataset: Reference | None = None
    tasks: list[str] | None = None
    max_per_task: Positive | None = None
    eval_tokens: Positive = 20 * 524_288
    device_batch_size: Positive | None = None
    seed: Seed = 42


class DatasetConfig(Strict):
    """Make a folder under datasets/: by download, or out of text on this machine (repackaging).

    The validation shard always comes on top of `num_shards`. Null: every shard that there is to download; when
    repackaging as many as give about 250 million characters each.
    """

    name: Name | None = Field(default=None, description="Of the folder; null: after the source on the hub.")
    source: Reference | None = Field(
        default=None,
        description="Null: the public dataset of that name. Else hf://owner/dataset[@revision][/folder], or the "
        "absolute path of a file or folder of JSONL, text or parquet.",
    )
    num_shards: Annotated[int, Field(ge=1, le=99_999)] | None = Field(default=None, description="For training.")
    column: Annotated[str, Field(min_length=1, max_length=200)] = Field(
        default="text", description="Where JSONL and parquet have the text. Repackaging only, as what follows."
    )
    max_document_chars: Annotated[int, Field(ge=100, le=10_000_000)] = Field(
        default=30_000, description="Longer documents are split, between paragraphs where they have any."
    )
    seed: Seed = Field(default=0, description="Of the order.")

    @property
    def is_repackaging(self) -> bool:
        return self.source is not None and not self.source.startswith(SCHEME)

    @property
    def folder_name(self) -> str:
        if self.name is not None:
            return self.name
        assert self.source is not None
        return HubReference.parse(self.source).folder_name

    @model_validator(mode="after")
    def _check(self) -> "DatasetConfig":
        if self.name is None and self.source is None:
            raise ValueError("give the name of a public dataset, a source, or both")
        if self.is_repackaging:
            assert self.source is not None
            if not self.source.startswith("/"):
                raise ValueError(f"source {self.source!r} is neither hf://owner/dataset nor an absolute path")
            if self.name is None:
                raise ValueError("give the name of the dataset that is to be made of source")
            return self
        useless = {"column", "max_document_chars", "seed"} & self.model_fields_set
        if useless:
            raise ValueError(f"{min(useless)} is for repackaging alone: shards of the hub come as they are")
        if self.source is not None:
            try:
                HubReference.parse(self.source)
                _ = self.folder_name
            except InvalidConfig as exc:
                raise ValueError(exc.message) from exc
        return self


class ReportConfig(Strict):
    run: Name


class PipelineConfig(Strict):
    """Stages of a named profile, in order; of those named in `stages` only, where it is given.

    `overrides` maps a stage's name, or the kind of several, to keys that replace the profile's.
    """

    profile: Name
    overrides: dict[str, dict[str, Any]] = Field(default_factory=dict)
    stages: list[str] | None = Field(default=None, min_length=1, max_length=1000)


JobConfig = (
    TokenizerConfig
    | PretrainConfig
    | SftConfig
    | RlConfig
    | EvaluateConfig
    | DatasetConfig
    | ReportConfig
    | PipelineConfig
)
CONFIG_BY_KIND: dict[str, type[Strict]] = {
    "tokenizer": TokenizerConfig,
    "pretrain": PretrainConfig,
    "sft": SftConfig,
    "rl": RlConfig,
    "evaluate": EvaluateConfig,
    "dataset": DatasetConfig,
    "report": ReportConfig,
    "pipeline": PipelineConfig,
}


def parse_config(kind: str, values: dict[str, Any]) -> Strict:
    """Check a config against its kind. Raises InvalidConfig that names the first bad key as `config.<key>`."""
    try:
        return CONFIG_BY_KIND[kind].model_validate(values)
    except ValidationError as exc:
        raise invalid_config(exc, prefix="config") from exc


class JobSpec(Strict):
    """The body of POST /v1/jobs."""

    kind: JobKind
    name: Name | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    num_processes: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        default=None, description="Null: the profile's, of a pipeline; else 1."
    )
    priority: Annotated[int, Field(ge=0, le=9)] = 0
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    deadline_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


class JobProgress(Strict):
    step: int = 0
    num_steps: int = 0
    ratio: float = 0.0
    tokens: int = 0
    tokens_per_second: float = 0.0
    eta_s: float | None = None


class JobError(Strict):
    """`code` is an error's code (nanochat.errors) or worker_lost, exit_code, deadline_exceeded, out_of_memory."""

    code: str
    message: str
    log_tail: list[str] = Field(default_factory=list)


class Job(Strict):
    """A job as it is shown. Times are Unix seconds."""

    id: str
    object: Literal["job"] = "job"
    kind: JobKind
    name: str
    status: JobStatus
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    attempt: int = 0
    max_attempts: int = 3
    num_processes: int = 1
    priority: int = 0
    deadline_s: float | None = None
    progress: JobProgress = Field(default_factory=JobProgress)
    metrics: dict[str, float] = Field(default_factory=dict)
    checkpoint: str | None = None
    output: str | None = None
    error: JobError | None = None
    parent_id: str | None = None
    stages: list[str] = Field(default_factory=list, description="A pipeline's job ids, in order.")
    config: dict[str, Any] = Field(default_factory=dict)


def stage_name(kind: str, name: str, pipeline: str) -> str:
    """A stage as its profile names it, from its job's kind and name and its pipeline's name.

    A stage with a name of its own is the job <pipeline>-<name>; any other bears the pipeline's name.
    """
    prefix = f"{pipeline}-"
    return name.removeprefix(prefix) if name.startswith(prefix) else kind


class RunSpec(Strict):
    """jobs/<id>/spec.json: what the worker hands to `python -m nanochat.recipes`. References are resolved to paths."""

    job_id: str
    kind: JobKind
    name: str
    config: dict[str, Any]
    home: str
    attempt: int = 1
