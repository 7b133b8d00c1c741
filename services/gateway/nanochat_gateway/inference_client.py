"""Speaks protocol/generate.py with the inference replicas: picks one, watches the deadlines, frees it at the end.

Until the first token a failure is an exception that becomes a status, and a replica that is away or full is replaced
by another. Afterwards it is an exception within `Generation.events`, which becomes an error frame.
What the events mean to a client is openai_stream.py's.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, suppress

from pydantic import ValidationError

from nanochat.errors import DeadlineExceeded, NanochatError, Unavailable
from nanochat.observability.request_id import current_request_id
from nanochat.protocol.generate import (
    Delta,
    Done,
    Finished,
    GenerateError,
    GenerateEvent,
    GenerateRequest,
    ServedModel,
    Started,
    ToolCall,
    generate_event,
)
from nanochat_gateway.peer_errors import peer_error, refusal
from nanochat_gateway.peer_http import PeerError, PeerHttp, Reply, Response, chunks
from nanochat_gateway.replicas import Replica, Replicas
from nanochat_gateway.settings import GatewaySettings
from nanochat_gateway.sse import read_events

AnswerEvent = Delta | ToolCall | Finished | Done
# During an update one replica goes while another has no model yet.
_MAX_ASKED = 3
_BROKEN = "The model's answer broke off; ask again."


class Generation:
    """An answer under way: `started`, then `events` once, then aclose() in any case, which also cancels it."""

    def __init__(
        self,
        started: Started,
        first: AnswerEvent,
        source: AsyncGenerator[GenerateEvent, None],
        resources: AsyncExitStack,
        *,
        token_timeout_s: float,
        deadline: float,
    ) -> None:
        self.started = started
        self._first = first
        self._source = source
        self._resources = resources
        self._token_timeout_s = token_timeout_s
        self._deadline = deadline  # of the event loop's clock

    async def events(self) -> AsyncGenerator[AnswerEvent, None]:
        """Ends after Done. Raises Unavailable, DeadlineExceeded or what the replica names when it breaks before."""
        event = self._first
        yield event
        while not isinstance(event, Done):
            event = await self._next()
            yield event

    async def aclose(self) -> None:
        """Leave the replica; it stops generating when it sees the connection closed. May be called again."""
        await self._resources.aclose()

    async def _next(self) -> AnswerEvent:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(min(loop.time() + self._token_timeout_s, self._deadline)):
                return await _answer_event(self._source)
        except TimeoutError:
            raise DeadlineExceeded("The answer did not go on in time; ask again or for a shorter one.") from None


class InferenceClient:
    def __init__(self, http: PeerHttp, settings: GatewaySettings, replicas: Replicas) -> None:
        self._http = http
        self._settings = settings
        self._replicas = replicas

    async def generate(self, request: GenerateRequest) -> Generation:
        """Begin an answer and wait for its first token.

        Raises what the replica refuses with, Unavailable where none can be reached, DeadlineExceeded after
        `first_token_timeout_s`. A replica that is away or full is replaced by another one.
        """
        deadline = asyncio.get_running_loop().time() + self._settings.request_timeout_s
        *others, last = self._replicas.ranked()[:_MAX_ASKED]
        try:
            async with asyncio.timeout(self._settings.first_token_timeout_s):
                for replica in others:
                    with suppress(Unavailable):
                        return await self._ask(replica, request, deadline)
                return await self._ask(last, request, deadline)
        except TimeoutError:
            raise DeadlineExceeded(
                f"The model gave no token within {self._settings.first_token_timeout_s:g} s; try again later."
            ) from None

    async def served_models(self) -> list[ServedModel]:
        """What the replicas serve, one entry a name; empty before the first promotion.

        Raises Unavailable when all replicas are away.
        """
        answers = await asyncio.gather(*(self._info(replica) for replica in self._replicas))
        reached = [answer for answer in answers if answer is not None]
        if not reached:
            raise Unavailable("The inference service does not answer; wait until it has started.", retry_after_s=2)
        return list({model.model: model for models in reached for model in models}.values())

    async def fetch(self, path: str) -> list[Reply]:
        """GET the path of every replica; those that do not answer in time are left out."""
        answers = await asyncio.gather(*(self._probe(replica, path) for replica in self._replicas))
        return [answer for answer in answers if answer is not None]

    async def _info(self, replica: Replica) -> list[ServedModel] | None:
        reply = await self._probe(replica, "/v1/info")
        if reply is None:
            return None
        return [ServedModel.model_validate_json(reply.body)] if reply.status == 200 else []

    async def _probe(self, replica: Replica, path: str) -> Reply | None:
        url, timeout_s = replica.url + path, self._settings.probe_timeout_s
        try:
            return await self._http.get(url, headers=_headers(), timeout_s=timeout_s)
        except (PeerError, TimeoutError):
            return None

    async def _ask(self, replica: Replica, request: GenerateRequest, deadline: float) -> Generation:
        try:
            return await self._begin(replica, request, deadline)
        except Unavailable:
            self._replicas.shun(replica)
            raise

    async def _begin(self, replica: Replica, request: GenerateRequest, deadline: float) -> Generation:
        """Raises Unavailable when the replica cannot be reached, breaks off, or says so itself."""
        replica.enter()
        async with AsyncExitStack() as undo:
            undo.callback(replica.leave)
            try:
                response = await self._send(replica, request)
                undo.callback(response.close)
                if response.status != 200:
                    raise _in_the_callers_words(await refusal(response), request)
            except PeerError as exc:
                self._replicas.missed()
                raise Unavailable("The inference service does not answer; try again in a moment.") from exc
            source = _parsed(response)
            undo.push_async_callback(source.aclose)
            started = await _next_event(source)
            if not isinstance(started, Started):
                raise Unavailable(_BROKEN)
            first = await _answer_event(source)
            return Generation(
                started,
                first,
                source,
                undo.pop_all(),
                token_timeout_s=self._settings.token_timeout_s,
                deadline=deadline,
            )

    async def _send(self, replica: Replica, request: GenerateRequest) -> Response:
        """Silence is watched above, over events."""
        return await self._http.send(
            "POST",
            f"{replica.url}/v1/generate",
            headers={**_headers(), "content-type": "application/json", "accept": "text/event-stream"},
            content=request.model_dump_json(exclude=_left_at_defaults(request)).encode(),
            connect_timeout_s=self._settings.connect_timeout_s,
        )


def _in_the_callers_words(error: NanochatError, request: GenerateRequest) -> NanochatError:
    """Completions know their text and token ids by one name."""
    if request.messages is None and error.param in ("messages", "prompt_token_ids"):
        error.param = "prompt"
    return error


def _left_at_defaults(request: GenerateRequest) -> set[str]:
    """An older replica refuses fields that it does not know: it only gets those that ask for something."""
    fields = GenerateRequest.model_fields.items()
    return {name for name, field in fields if getattr(request, name) == field.get_default(call_default_factory=True)}


def _headers() -> dict[str, str]:
    request_id = current_request_id()
    return {"x-request-id": request_id} if request_id else {}


async def _parsed(response: Response) -> AsyncGenerator[GenerateEvent, None]:
    """Events of the stream. Raises Unavailable where it breaks or makes no sense."""
    try:
        async for data in read_events(chunks(response)):
            yield generate_event.validate_json(data)
    except (PeerError, ValidationError) as exc:
        raise Unavailable(_BROKEN) from exc


async def _next_event(source: AsyncGenerator[GenerateEvent, None]) -> GenerateEvent:
    """Raises what the replica names, or Unavailable where the stream ends without a Done."""
    try:
        event = await anext(source)
    except StopAsyncIteration:
        raise Unavailable(_BROKEN) from None
    if isinstance(event, GenerateError):
        raise peer_error(event.code, event.message)
    return event


async def _answer_event(source: AsyncGenerator[GenerateEvent, None]) -> AnswerEvent:
    event = await _next_event(source)
    if isinstance(event, Started | GenerateError):
        raise Unavailable(_BROKEN)
    return event
