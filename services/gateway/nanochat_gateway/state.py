"""What one gateway process holds, made by create_app and reached through the request: never a global."""

from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends, Request

from nanochat_gateway.drain import Drain
from nanochat_gateway.inference_client import InferenceClient
from nanochat_gateway.keys import KeyRing
from nanochat_gateway.metrics import Metrics
from nanochat_gateway.settings import GatewaySettings
from nanochat_gateway.trainer_client import TrainerClient


@dataclass(frozen=True, kw_only=True)
class GatewayState:
    settings: GatewaySettings
    keys: KeyRing
    inference: InferenceClient
    trainer: TrainerClient
    metrics: Metrics
    drain: Drain = field(default_factory=Drain)


def state_of(request: Request) -> GatewayState:
    return cast(GatewayState, request.app.state.gateway)


State = Annotated[GatewayState, Depends(state_of)]
