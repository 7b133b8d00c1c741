"""Inference's events as OpenAI's text completions: several prompts, `echo`, and lists of log probabilities.

Choice j of prompt i has the index i * n + j. With `echo` the prompt comes first in the text and in the lists. A first
token of a prompt has no log probability, as nothing stands before it.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from nanochat.protocol.generate import Delta, Done, Finished, Started, TokenLogprob, ToolCall
from nanochat.protocol.openai import (
    Completion,
    CompletionChoice,
    CompletionLogprobs,
    CompletionRequest,
    FinishReason,
    Usage,
)
from nanochat_gateway.answer import AnswerHead, CollectedChoice, collect_generation, extension, usage
from nanochat_gateway.inference_client import Generation


@dataclass
class LogprobWriter:
    """Grows the parallel lists; `offset` is where the next token's text begins."""

    offset: int = 0
    lists: CompletionLogprobs = field(
        default_factory=lambda: CompletionLogprobs(tokens=[], token_logprobs=[], top_logprobs=[], text_offset=[])
    )

    def add(self, tokens: Sequence[TokenLogprob | None]) -> None:
        for token in tokens:
            self.lists.text_offset.append(self.offset)
            if token is None:
                self.lists.tokens.append("")
                self.lists.token_logprobs.append(None)
                self.lists.top_logprobs.append(None)
                continue
            self.lists.tokens.append(token.token)
            self.lists.token_logprobs.append(token.logprob)
            self.lists.top_logprobs.append(_top(token))
            self.offset += len(token.token) if token.bytes else 0  # special tokens are no text

    def take(self) -> CompletionLogprobs:
        """What was added since the last take."""
        taken, self.lists = self.lists, LogprobWriter().lists
        return taken


async def completion_choices(
    generation: Generation, body: CompletionRequest, position: int
) -> tuple[AnswerHead, list[CompletionChoice], Done]:
    """The whole choices of prompt `position`."""
    head = AnswerHead.of(generation.started, "cmpl")
    echo = _echo(generation.started, body, position)
    if body.max_tokens == 0:
        await generation.aclose()
        choices, done = [CollectedChoice(finish_reason="length") for _ in range(body.n)], _no_tokens(generation.started)
    else:
        choices, done = await collect_generation(generation, body.n)
    first = position * body.n
    return (
        head,
        [_whole_choice(first + i, choice, echo, generation.started, body) for i, choice in enumerate(choices)],
        done,
    )


def completion(head: AnswerHead, choices: list[CompletionChoice], dones: Sequence[Done]) -> Completion:
    whole = _completion(head, choices)
    whole.usage = _total_usage(dones)
    return whole


def _total_usage(dones: Sequence[Done]) -> Usage:
    return usage(
        Done(
            prompt_tokens=sum(done.prompt_tokens for done in dones),
            completion_tokens=sum(done.completion_tokens for done in dones),
            cached_tokens=sum(done.cached_tokens for done in dones),
        )
    )


async def completion_chunks(
    generation: Generation, head: AnswerHead, body: CompletionRequest, position: int, dones: list[Done]
) -> AsyncGenerator[Completion, None]:
    """The chunks of one prompt; its Done is added to `dones`."""
    started, first = generation.started, position * body.n
    echo = _echo(started, body, position)
    writers = [LogprobWriter() for _ in range(body.n)]
    calls: list[list[ToolCall]] = [[] for _ in range(body.n)]
    if body.echo:
        for index in range(body.n):
            logprobs = _logprobs(writers[index], started.prompt_logprobs or [], body)
            yield _chunk(head, body, first + index, echo, logprobs=logprobs)
    if body.max_tokens == 0:
        for index in range(body.n):
            yield _chunk(head, body, first + index, "", finish_reason="length")
        dones.append(_no_tokens(started))
        return
    async for event in generation.events():
        match event:
            case Delta():
                logprobs = _logprobs(writers[event.index], event.logprobs or [], body)
                yield _chunk(head, body, first + event.index, event.text, logprobs=logprobs)
            case ToolCall():
                calls[event.index].append(event)
                yield _chunk(head, body, first + event.index, "", calls=[event])
            case Finished():
                index, reason = event.index, event.finish_reason
                yield _chunk(head, body, first + index, "", finish_reason=reason, calls=calls[index])
            case Done():
                dones.append(event)


def usage_chunk(head: AnswerHead, dones: Sequence[Done]) -> Completion:
    return completion(head, [], dones)


def _echo(started: Started, body: CompletionRequest, position: int) -> str:
    """The prompt's text where it is asked for.

    Token ids become text by the bytes that inference sends with their log probabilities; the first one has none, so its
    text is missing unless it is BOS, which has no text anyway.
    """
    if not body.echo:
        return ""
    prompt = body.prompts[position]
    if isinstance(prompt, str):
        return prompt
    tokens = started.prompt_logprobs or []
    return b"".join(bytes(token.bytes) for token in tokens if token is not None).decode("utf-8", "replace")


def _whole_choice(
    index: int, choice: CollectedChoice, echo: str, started: Started, body: CompletionRequest
) -> CompletionChoice:
    writer = LogprobWriter()
    if body.echo:
        writer.add(started.prompt_logprobs or [])
    writer.add(choice.logprobs)
    return CompletionChoice(
        index=index,
        text=echo + choice.text,
        logprobs=writer.take() if body.logprobs is not None else None,
        finish_reason=choice.finish_reason,
        nanochat=extension(choice.tool_calls),
    )


def _chunk(
    head: AnswerHead,
    body: CompletionRequest,
    index: int,
    text: str,
    *,
    logprobs: CompletionLogprobs | None = None,
    finish_reason: FinishReason | None = None,
    calls: list[ToolCall] | None = None,
) -> Completion:
    choice = CompletionChoice(index=index, text=text, logprobs=logprobs, finish_reason=finish_reason)
    if calls is not None:
        choice.nanochat = extension(calls)
    chunk = _completion(head, [choice])
    if body.include_usage:
        chunk.usage = None  # as OpenAI does: null until the last chunk
    return chunk


def _completion(head: AnswerHead, choices: list[CompletionChoice]) -> Completion:
    return Completion(
        id=head.id,
        object="text_completion",
        created=head.created,
        model=head.model,
        system_fingerprint=head.fingerprint,
        choices=choices,
    )


def _logprobs(
    writer: LogprobWriter, tokens: Sequence[TokenLogprob | None], body: CompletionRequest
) -> CompletionLogprobs | None:
    if body.logprobs is None:
        return None
    writer.add(tokens)
    return writer.take()


def _top(token: TokenLogprob) -> dict[str, float]:
    """Alternatives by their text, the token itself among them; of two with the same text the likelier stays."""
    top = {token.token: token.logprob}
    for other in token.top:
        top[other.token] = max(other.logprob, top.get(other.token, other.logprob))
    return top


def _no_tokens(started: Started) -> Done:
    return Done(prompt_tokens=started.prompt_tokens, completion_tokens=0, cached_tokens=started.cached_tokens)
