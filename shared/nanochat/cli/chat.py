"""`nanochat chat`: talk to the served model from a terminal, or to a checkpoint without any service.

The conversation is kept here; who answers it is behind `Answerer` (the gateway below, local.py).
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Annotated

import typer

from nanochat.cli.client import ApiClient
from nanochat.cli.settings import CliSettings
from nanochat.cli.terminal import console, error_console, say
from nanochat.errors import InvalidRequest, NanochatError
from nanochat.protocol.generate import Message

HELP = "/new starts over, /system TEXT sets a system message, /exit or Ctrl-D ends, Ctrl-C stops an answer"


@dataclass(frozen=True, kw_only=True)
class Sampling:
    temperature: float
    top_k: int
    max_tokens: int | None


Answerer = Callable[[list[Message]], AsyncIterator[str]]


def chat(
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", help="Answer this once and end.")] = None,
    local: Annotated[str | None, typer.Option(help="A checkpoint's id or folder; no service is used.")] = None,
    model: Annotated[str | None, typer.Option(help="The served model; default: $NANOCHAT_MODEL.")] = None,
    system: Annotated[str | None, typer.Option(help="A system message.")] = None,
    temperature: Annotated[float, typer.Option(min=0.0, max=2.0)] = 0.3,
    top_k: Annotated[int, typer.Option(min=0, max=200, help="0: off.")] = 50,
    max_tokens: Annotated[int | None, typer.Option(min=1)] = None,
) -> None:
    """Chat with the model."""
    settings = CliSettings.load()
    sampling = Sampling(temperature=temperature, top_k=top_k, max_tokens=max_tokens)
    if local is not None:
        from nanochat.cli.local import local_answerer

        answerer: Answerer = local_answerer(settings, local, sampling)
    else:
        answerer = gateway_answerer(settings, model or settings.model, sampling)
    messages = [Message(role="system", content=system)] if system else []
    if prompt is not None:
        _answer(answerer, [*messages, Message(role="user", content=prompt)])
        return
    _converse(answerer, messages)


def gateway_answerer(settings: CliSettings, model: str, sampling: Sampling) -> Answerer:
    """Answers by POST /v1/chat/completions, as any OpenAI client would ask."""

    async def answer(messages: list[Message]) -> AsyncIterator[str]:
        body = {
            "model": model,
            "messages": [message.model_dump() for message in messages],
            "stream": True,
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "max_tokens": sampling.max_tokens,
        }
        async with ApiClient.from_settings(settings) as api:
            async for data in api.stream("/v1/chat/completions", body):
                if data == "[DONE]":
                    return
                chunk = json.loads(data)
                if "error" in chunk:
                    raise NanochatError(str(chunk["error"]["message"]))
                for choice in chunk["choices"]:
                    if text := choice["delta"].get("content"):
                        yield text
        raise NanochatError("the answer broke off; ask again.")

    return answer


def _converse(answerer: Answerer, messages: list[Message]) -> None:
    from prompt_toolkit import PromptSession

    session: PromptSession[str] = PromptSession()
    say(HELP)
    while True:
        try:
            line = session.prompt("> ").strip()
        except EOFError:
            return
        except KeyboardInterrupt:
            continue
        if not line:
            continue
        if line.startswith("/"):
            if line in ("/exit", "/quit"):
                return
            messages = _command(line, messages)
            continue
        asked = [*messages, Message(role="user", content=line)]
        try:
            messages = [*asked, Message(role="assistant", content=_answer(answerer, asked))]
        except NanochatError as exc:  # the conversation stays as it was before the question
            error_console.print(exc.message, style="red", markup=False)


def _command(line: str, messages: list[Message]) -> list[Message]:
    """The conversation after a command of the user's."""
    word, _, rest = line.partition(" ")
    if word == "/new":
        return [message for message in messages if message.role == "system"]
    if word == "/system":
        said = [message for message in messages if message.role != "system"]
        return [Message(role="system", content=rest), *said] if rest else said
    say(HELP)
    return messages


def _answer(answerer: Answerer, messages: list[Message]) -> str:
    """Print the answer as it comes; what was printed, when Ctrl-C stops it. Raises InvalidRequest on an empty one."""
    pieces: list[str] = []

    async def run() -> None:
        async for text in answerer(messages):
            pieces.append(text)
            console.print(text, end="", markup=False, soft_wrap=True)

    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        console.print(" (stopped)", end="")
    finally:
        if pieces:
            console.print()
    if not pieces:
        raise InvalidRequest("the model gave an empty answer; ask in other words.")
    return "".join(pieces)
