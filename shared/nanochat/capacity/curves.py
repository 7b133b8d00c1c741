"""What a step of one replica costs, as measured through its gateway: all that the simulator knows of model and machine.

Between measured points it is interpolated linearly; beyond the last one the last slope goes on.
"""

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from nanochat.errors import InvalidConfig
from nanochat.protocol import Strict

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class DecodePoint(Strict):
    """A step in which `batch_size` rows, each with about `context` tokens, get a token each."""

    batch_size: Count
    context: Count
    step_s: Seconds


class PrefillPoint(Strict):
    """A step that takes in a prompt, up to its first token."""

    num_tokens: Count
    step_s: Seconds


class Curves(Strict):
    """`latency_s`: what a first token takes beside the engine's own step: HTTP, gateway, queues between threads.

    `request_s`: what each request takes from the engine besides its prompt, where they share cores and an interpreter.
    `gateway_token_s`: what a token of an answer takes of a core in the gateway, with its request's share; 0: unknown.
    """

    format: Literal[1] = 1
    model: str
    checkpoint: str = ""
    num_parameters: int = Field(default=0, ge=0)
    machine: str = ""
    context_length: Count
    max_running: Count
    max_waiting: int = Field(ge=0)
    latency_s: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    request_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    gateway_token_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    decode: Annotated[list[DecodePoint], Field(min_length=1)]
    prefill: Annotated[list[PrefillPoint], Field(min_length=1)]

    @model_validator(mode="after")
    def _has_one_row(self) -> Self:
        if min(point.batch_size for point in self.decode) > 1:
            raise ValueError("decode has no point with batch_size 1; measure the curves again")
        return self

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises InvalidConfig naming the file and the field."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as exc:
            raise InvalidConfig(
                f"curves {path} cannot be read: {exc.strerror}. Make them: nanochat bench curves."
            ) from exc
        except ValidationError as exc:
            found = exc.errors(include_url=False)[0]
            where = ".".join(str(part) for part in found["loc"]) or "the file"
            raise InvalidConfig(f"curves {path}: {where}: {found['msg']}. Make them: nanochat bench curves.") from exc

    def prefill_s(self, num_tokens: int) -> float:
        """Of prompts with so many tokens in one forward, padding counted."""
        points = sorted((point.num_tokens, point.step_s) for point in self.prefill)
        return interpolate(points, num_tokens)

    def decode_s(self, batch_size: int, context: float) -> float:
        """Of a step of so many rows, whose contexts have this mean."""
        sizes = sorted({point.batch_size for point in self.decode})
        by_size = [(size, interpolate(self._at(size), context)) for size in sizes]
        return interpolate(by_size, batch_size)

    def _at(self, batch_size: int) -> list[tuple[int, float]]:
        return sorted((point.context, point.step_s) for point in self.decode if point.batch_size == batch_size)


def interpolate(points: Sequence[tuple[float, float]], x: float) -> float:
    """On the line between the two points around x; before the first its value, after the last its slope, if upwards."""
    if x <= points[0][0] or len(points) == 1:
        return points[0][1]
    index = min(bisect_right([point[0] for point in points], x), len(points) - 1)
    (x0, y0), (x1, y1) = points[index - 1], points[index]
    slope = (y1 - y0) / (x1 - x0)
    return y1 + max(0.0, slope) * (x - x1) if x > x1 else y0 + slope * (x - x0)
