"""Settings that every service shares, from NANOCHAT_* variables. A service adds its own class on top of this one.

Nothing else in the project reads the environment, but for torchrun's RANK family (recipes/distributed.py).
"""

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class CommonSettings(BaseSettings):
    """What all services share. Every field has a default that suits one machine."""

    model_config = SettingsConfigDict(env_prefix="NANOCHAT_", extra="ignore", frozen=True)

    home: Path = Field(default=Path("~/.cache/nanochat"), description="Where all state is kept.")
    database_url: str = Field(default="", description="SQLAlchemy URL; empty: SQLite at $NANOCHAT_HOME/nanochat.db.")
    redis_url: str = Field(default="redis://127.0.0.1:6379/0", description="Broker, live progress, rate limits.")
    data_roots: str = Field(
        default="",
        description="More folders that jobs may name by absolute path, separated by ':'. "
        "Datasets, tokenizers and checkpoints under $NANOCHAT_HOME always count.",
    )
    model: str = Field(default="nanochat", description="Name under which the promoted checkpoint is served.")
    log_level: str = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR.")

    @classmethod
    def load(cls) -> Self:
        """Read the environment now. Raises pydantic's ValidationError naming the variable."""
        return cls()

    @property
    def home_dir(self) -> Path:
        return self.home.expanduser().absolute()

    @property
    def resolved_database_url(self) -> str:
        return self.database_url or f"sqlite:///{self.home_dir / 'nanochat.db'}"

    @property
    def resolved_data_roots(self) -> tuple[Path, ...]:
        """Allowed folders for datasets, mixtures and checkpoints named by path, symbolic links resolved.

        $NANOCHAT_HOME's own datasets, tokenizers and checkpoints are always allowed.
        """
        own = [self.home_dir / name for name in ("datasets", "tokenizers", "checkpoints")]
        named = [Path(part).expanduser() for part in self.data_roots.split(":") if part]
        return tuple(path.resolve() for path in own + named)


class HubSettings(BaseSettings):
    """Where datasets are downloaded from, and how patiently: of whoever downloads, worker or command line."""

    model_config = SettingsConfigDict(env_prefix="NANOCHAT_HUB_", extra="forbid", frozen=True)

    url: str = Field(
        default="https://huggingface.co", pattern=r"^https?://[^\s/]+", description="The Hugging Face hub or a mirror."
    )
    token: SecretStr = Field(default=SecretStr(""), description="For gated and private datasets.")
    num_parallel: int = Field(default=8, ge=1, le=64, description="Files at once.")
    stall_timeout_s: float = Field(default=30.0, gt=0, description="A connection so long without a byte is made anew.")
    max_attempts: int = Field(default=6, ge=1, le=100, description="In a row without a new byte of a file.")
    deadline_s: float = Field(default=0.0, ge=0, description="For a whole download; 0: none.")

    @classmethod
    def load(cls) -> Self:
        """Read the environment now. Raises pydantic's ValidationError naming the variable."""
        return cls()
