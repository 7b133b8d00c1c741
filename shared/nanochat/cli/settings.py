"""Settings of the command line and of the embedded stack, on top of those that all services share."""

from pydantic import Field, SecretStr

from nanochat.settings import CommonSettings


class CliSettings(CommonSettings):
    """Where the commands that speak to a stack find it."""

    url: str = Field(default="", description="The gateway that commands speak to; empty: the stack of $NANOCHAT_HOME.")
    api_key: SecretStr = Field(default=SecretStr(""), description="The key that commands send.")
    endpoint_api_key: SecretStr = Field(
        default=SecretStr(""), description="Of the endpoint that `nanochat data identity --endpoint` names."
    )
    admin_keys: SecretStr = Field(
        default=SecretStr(""), description="Keys of the gateway; without one of its own, the first."
    )

    @property
    def key(self) -> str:
        """What commands send: their own key, or where the gateway's keys are known too, the first of those."""
        return self.api_key.get_secret_value() or self.admin_keys.get_secret_value().split(",")[0].strip()


class StackSettings(CliSettings):
    """Ports of the embedded stack. One that was not chosen gives way when it is taken; a chosen one is an error."""

    pages_url: str = Field(
        default="", description="Where people open the pages, for the demo to say; empty: at the gateway's own address."
    )
    gateway_port: int = Field(default=8000, ge=1, le=65535, description="Pages, OpenAI API, training API.")
    trainer_port: int = Field(default=8001, ge=1, le=65535, description="Jobs, on loopback.")
    inference_port: int = Field(default=8002, ge=1, le=65535, description="Generation, on loopback.")
    worker_metrics_port: int = Field(default=8003, ge=1, le=65535, description="Health and metrics of the worker.")

    def chosen(self, field: str) -> bool:
        """Whether the user set it, rather than the default."""
        return field in self.model_fields_set
