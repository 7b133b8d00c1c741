"""How an inference replica is deployed, from NANOCHAT_INFERENCE_* variables."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from nanochat.cores import usable_cores
from nanochat.settings import CommonSettings


class InferenceSettings(BaseSettings):
    """Every field has a default that suits one machine."""

    model_config = SettingsConfigDict(env_prefix="NANOCHAT_INFERENCE_", extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(default=8002, ge=0, le=65535)
    replica_id: str = Field(default="", description="Name among the replicas; empty: host name and process id.")
    checkpoint: Path | None = Field(
        default=None, description="Serve this checkpoint's folder, without a database; empty: the promoted one."
    )
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1, mps.")
    precision: Literal["auto", "int8", "fp32", "bf16", "fp16", "fp8"] = Field(
        default="auto",
        description="auto: on a CPU int8 where that costs a model little enough, else fp32; fp8: from sm90 on.",
    )
    int8_max_cost_ratio: float = Field(
        default=0.005, ge=0, description="What int8 may cost in bits per byte; above it is refused. 0: no bound."
    )
    workers: int = Field(
        default=0, ge=0, le=64, description="Processes with a model each, devices in turn; 0: one a GPU, else one."
    )
    num_threads: int = Field(
        default=0, ge=0, description="Threads of a matrix product, of all workers together; 0: the usable cores."
    )
    openmp_wait_policy: Literal["passive", "active"] = Field(
        default="passive", description="Whether idle threads sleep, or spin: faster on cores that nobody else wants."
    )

    max_running: int = Field(default=8, ge=1, le=1024, description="Choices that a worker generates at once.")
    max_waiting: int = Field(default=64, ge=0, description="Choices that wait for a slot; more are refused with 503.")
    max_waiting_tokens: int = Field(
        default=65536, ge=0, description="Of requests without a first token, about; more are refused. 0: no bound."
    )
    max_step_tokens: int = Field(
        default=1024, ge=64, description="Computed in one step; where rows wait for their next token, far fewer."
    )
    prefix_cache_mib: int = Field(
        default=512, ge=0, description="A worker's memory for beginnings of prompts that may come again; 0: off."
    )
    max_body_bytes: int = Field(default=8 * 2**20, ge=1024)
    deadline_s: float = Field(default=600.0, gt=0, description="From a request's arrival to its last token.")
    worker_timeout_s: float = Field(
        default=30.0,
        gt=0,
        description="A worker that is silent, or does not go on with a step or its first load, for so long is killed.",
    )
    drain_timeout_s: float = Field(default=30.0, ge=0, description="For running requests, after SIGTERM.")
    poll_interval_s: float = Field(default=1.0, gt=0, description="Between looks at the choice of model, and beats.")
    reload_interval_s: float = Field(default=10.0, gt=0, description="Before a checkpoint that failed is tried again.")

    common: CommonSettings = Field(default_factory=CommonSettings.load)

    @classmethod
    def load(cls) -> Self:
        """Read the environment now. Raises pydantic's ValidationError naming the variable."""
        return cls()

    @property
    def model(self) -> str:
        """The name that requests ask for."""
        return self.common.model

    @property
    def resolved_num_threads(self) -> int:
        return self.num_threads or usable_cores()
