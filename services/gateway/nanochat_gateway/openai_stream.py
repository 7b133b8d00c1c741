"""Inference's events as OpenAI's chat completions: chunks of a stream, or one whole answer.

A calculator call stands in the text as plain content, and in `nanochat.tool_calls` of the chunk where it happened and,
all of them again, of the chunk that finishes its choice (or of the message). Completions are completions.py's.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from pydantic import BaseModel

from nanochat.errors import NanochatError
from nanochat.protocol.generate import Delta, Done, Finished, TokenLogprob, ToolCall
from nanochat.protocol.openai import (
    AssistantMessage,
    ChatChoice,
    ChatChunkChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionRequest,
    ChatDelta,
    ChatLogprobs,
    ChatTokenLogprob,
    Extension,
    FinishReason,
    TopLogprob,
    Usage,
)
from nanochat_gateway.answer import AnswerHead, CollectedChoice, collect_generation, extension, usage
from nanochat_gateway.errors import body_of
from nanochat_gateway.inference_client import Generation
from nanochat_gateway.sse import DONE, frame


async def frames(chunks: AsyncGenerator[BaseModel, None]) -> AsyncGenerator[bytes, None]:
    """A stream's bytes: the chunks and [DONE], or the chunks so far and one error."""
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                yield frame(chunk.model_dump_json(exclude_unset=True))
    except NanochatError as error:
        yield frame(body_of(error).model_dump_json())
        return
    yield DONE


async def chat_completion(generation: Generation, body: ChatCompletionRequest) -> ChatCompletion:
    head = AnswerHead.of(generation.started, "chatcmpl")
    choices, done = await collect_generation(generation, body.n)
    return ChatCompletion(
        id=head.id,
        object="chat.completion",
        created=head.created,
        model=head.model,
        system_fingerprint=head.fingerprint,
        choices=[_whole_choice(i, choice, body.logprobs) for i, choice in enumerate(choices)],
        usage=usage(done),
    )


async def chat_chunks(generation: Generation, body: ChatCompletionRequest) -> AsyncGenerator[ChatCompletionChunk, None]:
    """The role of each choice, what happens to it, and with include_usage a last chunk without choices."""
    stream = _ChunkWriter(AnswerHead.of(generation.started, "chatcmpl"), body)
    calls: list[list[ToolCall]] = [[] for _ in range(body.n)]
    for index in range(body.n):
        yield stream.chunk(index, ChatDelta(role="assistant", content=""))
    async for event in generation.events():
        match event:
            case Delta():
                yield stream.chunk(event.index, ChatDelta(content=event.text), tokens=event.logprobs)
            case ToolCall():
                calls[event.index].append(event)
                yield stream.chunk(event.index, ChatDelta(), added=extension([event]))
            case Finished():
                added = extension(calls[event.index])
                yield stream.chunk(event.index, ChatDelta(), finish_reason=event.finish_reason, added=added)
            case Done() if body.include_usage:
                yield stream.usage_chunk(usage(event))


class _ChunkWriter:
    """Makes chunks that agree on what all chunks of an answer repeat."""

    def __init__(self, head: AnswerHead, body: ChatCompletionRequest) -> None:
        self._head = head
        self._has_usage = body.include_usage
        self._has_logprobs = body.logprobs

    def chunk(
        self,
        index: int,
        delta: ChatDelta,
        *,
        tokens: Sequence[TokenLogprob] | None = None,
        finish_reason: FinishReason | None = None,
        added: Extension | None = None,
    ) -> ChatCompletionChunk:
        logprobs = chat_logprobs(tokens) if self._has_logprobs and tokens else None
        choice = ChatChunkChoice(index=index, delta=delta, logprobs=logprobs, finish_reason=finish_reason)
        chunk = self._blank([choice])
        if self._has_usage:
            chunk.usage = None  # as OpenAI does: null until the last chunk
        if added is not None:
            chunk.nanochat = added
        return chunk

    def usage_chunk(self, value: Usage) -> ChatCompletionChunk:
        chunk = self._blank([])
        chunk.usage = value
        return chunk

    def _blank(self, choices: list[ChatChunkChoice]) -> ChatCompletionChunk:
        return ChatCompletionChunk(
            id=self._head.id,
            object="chat.completion.chunk",
            created=self._head.created,
            model=self._head.model,
            system_fingerprint=self._head.fingerprint,
            choices=choices,
        )


def _whole_choice(index: int, choice: CollectedChoice, has_logprobs: bool) -> ChatChoice:
    assert choice.finish_reason is not None, "inference finishes every choice before it is done"
    return ChatChoice(
        index=index,
        message=AssistantMessage(role="assistant", content=choice.text, refusal=None, nanochat=choice.extension),
        logprobs=chat_logprobs(choice.logprobs) if has_logprobs else None,
        finish_reason=choice.finish_reason,
    )


def chat_logprobs(tokens: Sequence[TokenLogprob]) -> ChatLogprobs:
    return ChatLogprobs(content=[_token(token) for token in tokens], refusal=None)


def _token(token: TokenLogprob) -> ChatTokenLogprob:
    top = [TopLogprob(token=other.token, logprob=other.logprob, bytes=other.bytes) for other in token.top]
    return ChatTokenLogprob(token=token.token, logprob=token.logprob, bytes=token.bytes, top_logprobs=top)
