"""What both OpenAI shapes have in common: an answer's name and time, its usage, and the collecting of a whole one."""

import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from nanochat.protocol.generate import Delta, Done, Finished, Started, TokenLogprob, ToolCall
from nanochat.protocol.openai import Extension, FinishReason, PromptTokensDetails, ToolCallRecord, Usage
from nanochat_gateway.inference_client import AnswerEvent, Generation


@dataclass(frozen=True, kw_only=True)
class AnswerHead:
    """What every chunk of an answer repeats. `fingerprint` is the checkpoint: what a seed's promise holds for."""

    id: str
    created: int
    model: str
    fingerprint: str

    @classmethod
    def of(cls, started: Started, prefix: str) -> "AnswerHead":
        return cls(
            id=f"{prefix}-{uuid.uuid4().hex}",
            created=int(time.time()),
            model=started.model,
            fingerprint=started.checkpoint,
        )


@dataclass
class CollectedChoice:
    """One choice as far as it has come."""

    text: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    tool_calls: list[ToolCall] = field(default_factory=list)
    finish_reason: FinishReason | None = None

    def take(self, event: Delta | ToolCall | Finished) -> None:
        match event:
            case Delta():
                self.text += event.text
                self.logprobs += event.logprobs or []
            case ToolCall():
                self.tool_calls.append(event)
            case Finished():
                self.finish_reason = event.finish_reason

    @property
    def extension(self) -> Extension:
        return extension(self.tool_calls)


async def collect(events: AsyncGenerator[AnswerEvent, None], n: int) -> tuple[list[CollectedChoice], Done]:
    """The whole answer, `n` choices. Raises what breaks it."""
    choices = [CollectedChoice() for _ in range(n)]
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Done):
                return choices, event
            choices[event.index].take(event)
    raise AssertionError("events end with Done or an exception")


async def collect_generation(generation: Generation, n: int) -> tuple[list[CollectedChoice], Done]:
    """The whole answer; the generation is closed afterwards in any case."""
    try:
        return await collect(generation.events(), n)
    finally:
        await generation.aclose()


def extension(calls: list[ToolCall]) -> Extension:
    return Extension(tool_calls=[ToolCallRecord(**call.model_dump(exclude={"type"})) for call in calls])


def usage(done: Done) -> Usage:
    return Usage(
        prompt_tokens=done.prompt_tokens,
        completion_tokens=done.completion_tokens,
        total_tokens=done.prompt_tokens + done.completion_tokens,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=done.cached_tokens),
    )
