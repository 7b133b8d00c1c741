"""How the worker is deployed, from NANOCHAT_WORKER_* variables."""

import os
import socket
from typing import Self

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from nanochat.settings import CommonSettings


class WorkerSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="NANOCHAT_WORKER_", extra="forbid", frozen=True)

    name: str = Field(default="", description="Name in the database; empty: host name and process id.")
    metrics_host: str = "127.0.0.1"
    metrics_port: int = Field(default=8003, ge=0, le=65535, description="Health and metrics.")
    concurrency: int = Field(default=1, ge=1, le=64, description="Jobs at the same time.")
    max_jobs: int = Field(default=0, ge=0, description="Ends after so many jobs; 0: never.")
    idle_timeout_s: float = Field(default=0.0, ge=0, description="Ends after so long without a job; 0: never.")
    stop_grace_s: float = Field(default=30.0, ge=0, description="From SIGTERM to SIGKILL: time to write a checkpoint.")
    # Well below the lease, so that a lost worker's run is over before another one begins.
    lost_grace_s: float = Field(default=8.0, ge=0, le=12, description="The same when the worker itself was killed.")
    poll_s: float = Field(default=0.5, gt=0, le=2, description="Between two looks at a run.")
    threads: int = Field(default=0, ge=0, description="OMP threads a process; 0: the cores shared out.")
    schema_timeout_s: float = Field(default=60.0, gt=0, description="To wait for the trainer to make the tables.")
    torchrun: str = Field(default="torch.distributed.run", description="Module that starts the ranks.")
    recipes: str = Field(default="nanochat.recipes", description="Module that the ranks run.")

    common: CommonSettings = Field(default_factory=CommonSettings.load)

    @classmethod
    def load(cls) -> Self:
        """Read the environment now."""
        return cls()

    @property
    def worker_id(self) -> str:
        return self.name or f"{socket.gethostname()}-{os.getpid()}"
