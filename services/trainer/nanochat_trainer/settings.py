"""How the trainer is deployed, from NANOCHAT_TRAINER_* variables."""

from typing import Self

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from nanochat.settings import CommonSettings


class TrainerSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="NANOCHAT_TRAINER_", extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(default=8001, ge=0, le=65535)
    reconcile_interval_s: float = Field(default=1.0, gt=0, description="Between two looks at the queue.")
    resend_after_s: float = Field(
        default=15.0, gt=0, description="A sent job that has not started is sent again if the broker holds no message."
    )
    promote_timeout_s: float = Field(default=30.0, gt=0, description="For every live replica to serve a promotion.")
    database_timeout_s: float = Field(default=60.0, gt=0, description="To wait at the start for PostgreSQL to answer.")
    events_poll_s: float = Field(default=0.5, gt=0, description="Between two looks at a job whose events are read.")
    shutdown_timeout_s: int = Field(default=5, ge=0, description="For open requests, once told to stop.")

    common: CommonSettings = Field(default_factory=CommonSettings.load)

    @classmethod
    def load(cls) -> Self:
        """Read the environment now."""
        return cls()
