"""How the gateway is deployed, from NANOCHAT_GATEWAY_* and, for keys, NANOCHAT_* variables."""

from typing import Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from nanochat.loopback import is_loopback
from nanochat.settings import CommonSettings


class AccessSettings(BaseSettings):
    """Who may call. Keys are separated by commas; an admin key may do what an API key may."""

    model_config = SettingsConfigDict(env_prefix="NANOCHAT_", extra="ignore", frozen=True)

    api_keys: SecretStr = Field(default=SecretStr(""), description="Keys that may chat.")
    admin_keys: SecretStr = Field(default=SecretStr(""), description="Keys that may also train and promote.")
    allow_anonymous: bool = Field(default=False, description="Listen beyond this machine without any key.")

    @classmethod
    def load(cls) -> Self:
        return cls()

    @property
    def api_key_list(self) -> list[str]:
        return _split(self.api_keys.get_secret_value())

    @property
    def admin_key_list(self) -> list[str]:
        return _split(self.admin_keys.get_secret_value())

    @property
    def has_keys(self) -> bool:
        return bool(self.api_key_list or self.admin_key_list)


class GatewaySettings(BaseSettings):
    """Raises pydantic's ValidationError where the gateway would be open to a network without a key."""

    model_config = SettingsConfigDict(env_prefix="NANOCHAT_GATEWAY_", extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    inference_urls: str = Field(
        default="http://127.0.0.1:8002",
        description="Replicas, with ',' between; every address that a name has is one.",
    )
    replica_lookup_interval_s: float = Field(default=5.0, gt=0, description="Between two lookups of a replica's name.")
    trainer_url: str = "http://127.0.0.1:8001"

    # OpenAI's 1.0 suits large models; a small one spells worse by a tenth there than at 0.3.
    chat_temperature: float = Field(default=0.3, ge=0, le=2, description="Of chats that name none.")
    max_messages: int = Field(default=500, ge=1)
    max_message_chars: int = Field(default=8000, ge=1)
    max_total_chars: int = Field(default=32000, ge=1, description="In all messages, or in one text prompt.")
    max_prompts: int = Field(default=256, ge=1, description="Prompts of one completions request.")
    max_parallel_prompts: int = Field(default=8, ge=1, description="Of them, how many at inference at once.")
    max_body_bytes: int = Field(default=4 * 2**20, ge=1024)
    max_reply_bytes: int = Field(
        default=64 * 2**20, ge=1024, description="An answer of the trainer, event streams aside."
    )

    connect_timeout_s: float = Field(default=2.0, gt=0)
    first_token_timeout_s: float = Field(default=60.0, gt=0, description="Waiting in the queue included.")
    token_timeout_s: float = Field(default=30.0, gt=0, description="Longest silence of inference within an answer.")
    request_timeout_s: float = Field(default=600.0, gt=0, description="A whole answer.")
    trainer_timeout_s: float = Field(default=120.0, gt=0, description="A promotion waits for every replica.")
    probe_timeout_s: float = Field(default=2.0, gt=0, description="Model lists, statistics and health of a peer.")
    keep_alive_s: float = Field(default=10.0, gt=0, description="Silence of a stream before a comment is sent.")
    # Below the ten seconds that the embedded stack grants a service; containers give more.
    drain_timeout_s: float = Field(default=8.0, ge=0, description="For open requests, after SIGTERM.")
    drain_delay_s: float = Field(
        default=0.0, ge=0, description="Before that, though idle: for balancers to notice that it is not ready."
    )

    access: AccessSettings = Field(default_factory=AccessSettings.load)
    common: CommonSettings = Field(default_factory=CommonSettings.load)

    @classmethod
    def load(cls) -> Self:
        """Read the environment now."""
        return cls()

    @property
    def inference_url_list(self) -> list[str]:
        return [url.rstrip("/") for url in _split(self.inference_urls)]

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.host)

    @model_validator(mode="after")
    def _open_only_on_purpose(self) -> Self:
        if not self.inference_url_list:
            raise ValueError("NANOCHAT_GATEWAY_INFERENCE_URLS is empty; give at least one address")
        if not (self.is_loopback or self.access.has_keys or self.access.allow_anonymous):
            raise ValueError(
                f"the address {self.host} can be reached from other machines and no key is set; set NANOCHAT_API_KEYS "
                "and NANOCHAT_ADMIN_KEYS, listen on 127.0.0.1, or set NANOCHAT_ALLOW_ANONYMOUS=1 to let anyone in"
            )
        return self


def _split(values: str) -> list[str]:
    return [value.strip() for value in values.split(",") if value.strip()]
