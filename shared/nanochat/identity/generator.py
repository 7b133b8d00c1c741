"""Has an OpenAI-compatible endpoint write conversations, some at once, and appends each that passes to a JSONL file.

The file is the whole state: a line holds its draw's number, so that a run that was stopped goes on after the last one.
"""

import asyncio
import collections
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import httpx

from nanochat.data.hub.patience import Patience, Throttle, TryAgain, parse_retry_after
from nanochat.errors import DataError, Forbidden, InvalidConfig, NotFound, Unauthorized, Unavailable
from nanochat.identity.checks import Novelty, Unfit, check, parse
from nanochat.identity.drawing import SCHEMA, draw, request
from nanochat.protocol.generate import Message
from nanochat.tasks.custom_json import conversation_of
from nanochat.tasks.persona import Persona

_TIMEOUT = httpx.Timeout(10.0, read=120.0)
_WORTH_ANOTHER_TRY = frozenset({408, 429, 500, 502, 503, 504})
# So many refused for every one that is wanted, and then the endpoint is not up to it.
_MAX_REFUSED_RATIO = 3
_MIN_REFUSED = 20


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """`url` up to /v1, as OpenAI's clients take it."""

    url: str
    model: str
    key: str = ""
    temperature: float = 1.0
    max_tokens: int = 1200


@dataclass(kw_only=True)
class Counts:
    """How far it is. `refused` by reason."""

    num_wanted: int
    num_before: int = 0
    num_written: int = 0
    refused: collections.Counter[str] = field(default_factory=collections.Counter)

    @property
    def num_there(self) -> int:
        return self.num_before + self.num_written


async def generate(
    persona: Persona,
    endpoint: Endpoint,
    file: Path,
    num_wanted: int,
    *,
    seed: int = 0,
    concurrency: int = 8,
    patience: Patience | None = None,
    on_progress: Callable[[Counts], None] = lambda counts: None,
) -> Counts:
    """Until `file` holds so many conversations. Cancelling is safe at any time.

    Raises DataError for a file that holds something else, or where most of what the endpoint writes is unfit;
    Unavailable where it does not answer; Unauthorized, Forbidden, NotFound, InvalidConfig as it says.
    """
    novelty, counts = Novelty(), Counts(num_wanted=num_wanted)
    next_index = _read(file, novelty, counts)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as lines:
        async with _Writer(endpoint, patience or Patience(longest_retry_after_s=300.0)) as writer:
            work = _Work(persona, writer, lines, novelty, counts, seed, next_index, on_progress)
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(concurrency, max(0, num_wanted - counts.num_there))):
                        group.create_task(work.run())
            except BaseExceptionGroup as failed:
                raise failed.exceptions[0] from failed  # the first to fail has cancelled the others
    return counts


def _read(file: Path, novelty: Novelty, counts: Counts) -> int:
    """Take in what an earlier run wrote; the number of the next draw. A last line that was cut is removed."""
    if not file.exists():
        return 0
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        file.write_bytes(whole)
    next_index = 0
    for number, line in enumerate(whole.splitlines(), start=1):
        place = f"{file}, line {number}"
        try:
            value = json.loads(line)
            index = int(value["draw"])
        except (ValueError, KeyError, TypeError) as exc:
            raise DataError(f"{place} was not written by this command; give the name of a new file.") from exc
        messages = conversation_of(value, place).messages
        with contextlib.suppress(Unfit):  # it is there; what matters is that no new one is like it
            novelty.add(messages)
        counts.num_before += 1
        next_index = max(next_index, index + 1)
    return next_index


class _Work:
    """What the tasks share: each takes the next draw until enough have passed."""

    def __init__(
        self,
        persona: Persona,
        writer: "_Writer",
        lines: TextIO,
        novelty: Novelty,
        counts: Counts,
        seed: int,
        next_index: int,
        on_progress: Callable[[Counts], None],
    ) -> None:
        self._persona, self._writer, self._lines, self._novelty = persona, writer, lines, novelty
        self._counts, self._seed, self._next_index, self._on_progress = counts, seed, next_index, on_progress

    async def run(self) -> None:
        counts = self._counts
        while counts.num_there < counts.num_wanted:
            index, self._next_index = self._next_index, self._next_index + 1
            text = await self._writer.write(request(self._persona, draw(self._persona, self._seed, index)))
            if counts.num_there >= counts.num_wanted:
                return  # others were faster
            try:
                messages = parse(text)
                check(messages, self._persona)
                self._novelty.add(messages)
            except Unfit as exc:
                counts.refused[str(exc)] += 1
                self._check_refused()
            else:
                self._append(index, messages)
            self._on_progress(counts)

    def _append(self, index: int, messages: list[Message]) -> None:
        line = {"messages": [message.model_dump() for message in messages], "draw": index}
        self._lines.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._lines.flush()
        self._counts.num_written += 1

    def _check_refused(self) -> None:
        refused = self._counts.refused
        if refused.total() > _MIN_REFUSED + _MAX_REFUSED_RATIO * self._counts.num_written:
            most = ", ".join(f"{count} {reason}" for reason, count in refused.most_common(3))
            raise DataError(
                f"{refused.total()} conversations were unfit and {self._counts.num_written} good ({most}): "
                "the model does not follow the instructions. Take a larger one, or another temperature."
            )


class _Writer:
    """One endpoint's chat completions, as text."""

    def __init__(self, endpoint: Endpoint, patience: Patience) -> None:
        self._endpoint = endpoint
        self._throttle = Throttle(patience)
        self._takes_schema = True
        headers = {"authorization": f"Bearer {endpoint.key}"} if endpoint.key else {}
        self._client = httpx.AsyncClient(timeout=_TIMEOUT, headers=headers)

    async def __aenter__(self) -> "_Writer":
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._client.aclose()

    async def write(self, messages: list[dict[str, str]]) -> str:
        failures = 0
        while True:
            await self._throttle.turn()
            try:
                return await self._ask(messages)
            except TryAgain as exc:
                failures += 1
                if failures >= self._throttle.patience.max_attempts:
                    raise Unavailable(
                        f"{self._endpoint.url} gave no answer in {failures} attempts; the last one: {exc.reason}. "
                        "Start again later: what is written stays, and it goes on."
                    ) from exc
                await self._throttle.pause(failures, exc.retry_after_s)

    async def _ask(self, messages: list[dict[str, str]]) -> str:
        endpoint, with_schema = self._endpoint, self._takes_schema
        body: dict[str, Any] = {
            "model": endpoint.model,
            "messages": messages,
            "temperature": endpoint.temperature,
            "max_tokens": endpoint.max_tokens,
        }
        if with_schema:
            schema = {"name": "conversation", "strict": True, "schema": SCHEMA}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        try:
            response = await self._client.post(f"{endpoint.url.rstrip('/')}/chat/completions", json=body)
        except httpx.TransportError as exc:
            raise TryAgain(type(exc).__name__) from exc
        except (httpx.InvalidURL, ValueError) as exc:
            raise InvalidConfig(f"{endpoint.url} is no address of an endpoint: {exc}.", param="endpoint") from exc
        if response.status_code in _WORTH_ANOTHER_TRY:
            raise TryAgain(f"status {response.status_code}", parse_retry_after(response.headers.get("retry-after")))
        if response.status_code in (400, 422) and with_schema:
            self._takes_schema = False  # an endpoint that cannot hold to one is asked for JSON in words alone
            return await self._ask(messages)
        if response.is_error:
            raise _refusal(response, endpoint)
        try:
            content = response.json()["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError) as exc:
            raise TryAgain("an answer that is no chat completion") from exc
        return str(content or "")


def _refusal(response: httpx.Response, endpoint: Endpoint) -> Exception:
    said = f"{endpoint.url} answered {response.status_code}: {response.text[:300]}"
    kinds = {401: Unauthorized, 403: Forbidden, 404: NotFound}
    kind = kinds.get(response.status_code, InvalidConfig)
    hint = " Set NANOCHAT_ENDPOINT_API_KEY." if response.status_code in (401, 403) else ""
    return kind(said + hint)
