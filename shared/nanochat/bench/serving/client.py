"""One streamed request to an OpenAI-compatible address, and when each part of its answer came.

Servers differ in what they take; `Dialect` says what this one does, and Server.dialect() finds it out. Nothing here
raises because a request failed: that is a finding, kept in the answer by its kind.
"""

import asyncio
import itertools
import json
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import httpx

from nanochat.bench.serving.prompts import Messages, Prompt, token_ids, words
from nanochat.errors import NotFound, Unauthorized, Unavailable
from nanochat.tokenizer.special import SPECIAL_TOKENS

_CONNECT_S = 10.0
# Nearly all tokens alike, so that one that ends the answer is rare: for servers that do not take ignore_eos.
_STOP_FREE_TEMPERATURE = 2.0
# Ids that exist in every vocabulary, for servers that do not tell theirs.
_SMALL_VOCABULARY = 256

PromptKind = Literal["ids", "text", "chat"]
_KINDS: tuple[PromptKind, ...] = ("ids", "text", "chat")
_NOT_TAKEN = {f"status {status}" for status in (400, 404, 405, 422)}


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How a server is asked. num_ids: prompts are drawn from as many token ids. temperature None: see `_body`."""

    prompts: PromptKind = "ids"
    takes_ignore_eos: bool = False
    num_ids: int = _SMALL_VOCABULARY
    temperature: float | None = None


@dataclass(kw_only=True)
class Answer:
    """Times are the event loop's, in seconds. `error` is a kind such as "status 503", or empty; is_open until it ends.

    num_tokens and the prompt's are the server's count where it gives one; chunks with text else. cached_tokens are
    those of the prompt that the server says it had already.
    """

    sent_s: float = 0.0
    max_tokens: int = 0  # asked for
    chunks_s: list[float] = field(default_factory=list)
    finished_s: float | None = None
    num_tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    text: str = ""
    error: str = ""
    message: str = ""  # the server's, of an error
    is_open: bool = True

    @property
    def is_good(self) -> bool:
        return not self.is_open and not self.error and bool(self.chunks_s)

    @property
    def ttft_s(self) -> float:
        return self.chunks_s[0] - self.sent_s

    @property
    def e2e_s(self) -> float:
        assert self.finished_s is not None
        return self.finished_s - self.sent_s

    @property
    def gaps_s(self) -> list[float]:
        """Between one part of the text and the next."""
        return [after - before for before, after in zip(self.chunks_s, self.chunks_s[1:], strict=False)]

    @property
    def token_s(self) -> float | None:
        """Mean time of a token after the first; None where there is but one."""
        return (self.chunks_s[-1] - self.chunks_s[0]) / (self.num_tokens - 1) if self.num_tokens > 1 else None


class Server:
    """`async with Server(url, model=..., key=...) as server`. An empty model: the first that the server lists.

    timeout_s bounds each request from its sending to its last token.
    """

    def __init__(self, url: str, *, model: str = "", key: str = "", timeout_s: float = 300.0) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self._model = model
        self._timeout_s = timeout_s
        self._client = httpx.AsyncClient(
            base_url=self.url,
            headers={"authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(_CONNECT_S, read=timeout_s),
            limits=httpx.Limits(max_connections=2000, max_keepalive_connections=100),
            trust_env=False,
        )
        self._listed: dict[str, Any] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def listed(self) -> dict[str, Any]:
        """The model as /v1/models lists it. Raises Unavailable, Unauthorized, or NotFound."""
        if self._listed is None:
            models = (await self.get("/v1/models")).get("data") or []
            found = next((model for model in models if self._model in ("", model["id"])), None)
            if found is None:
                what = f"model {self._model!r}" if self._model else "no model"
                there = ", ".join(model["id"] for model in models) or "none"
                raise NotFound(f"{what} is served at {self.url}; there: {there}.")
            self._listed = found
        return self._listed

    async def dialect(self, *, num_ids: int = 0, temperature: float | None = None) -> Dialect:
        """What the server takes, by asking for one token: ids, text or chats only, ignore_eos or not.

        num_ids 0: as many as the server says it has, or few. Raises Unavailable where it answers nothing at all.
        """
        known = (await self.listed()).get("nanochat", {}).get("vocab_size", 0)
        num_ids = num_ids or max(0, known - len(SPECIAL_TOKENS)) or _SMALL_VOCABULARY
        answer = Answer()
        for kind, takes_ignore_eos in itertools.product(_KINDS, (True, False)):
            dialect = Dialect(prompts=kind, takes_ignore_eos=takes_ignore_eos, num_ids=num_ids, temperature=temperature)
            answer = await self.ask(dialect, draw(dialect, 8, seed="probe"), max_tokens=1)
            if not answer.error:
                return dialect
            if answer.error not in _NOT_TAKEN:
                break
        raise Unavailable(f"{self.url} answers no completion: {answer.error}. {answer.message}".strip())

    async def ask(self, dialect: Dialect, prompt: Prompt, *, max_tokens: int, answer: Answer | None = None) -> Answer:
        """One request, now. Whoever gives the answer to fill can watch it come."""
        loop = asyncio.get_running_loop()
        body = {"model": (await self.listed())["id"], **_body(dialect, prompt, max_tokens)}
        path = "/v1/chat/completions" if isinstance(prompt, Messages) else "/v1/completions"
        answer = answer or Answer()
        answer.sent_s, answer.max_tokens = loop.time(), max_tokens
        try:
            async with asyncio.timeout(self._timeout_s), self._client.stream("POST", path, json=body) as response:
                if response.status_code != 200:
                    answer.error = f"status {response.status_code}"
                    answer.message = (await response.aread())[:500].decode("utf-8", "replace")
                    return answer
                await self._read(response, answer)
        except (TimeoutError, httpx.TimeoutException):
            answer.error = "timeout"
        except httpx.ConnectError:
            answer.error = "no connection"
        except httpx.HTTPError:
            answer.error = "connection lost"
        except (ValueError, LookupError, TypeError, AttributeError):
            answer.error = "unreadable answer"
        finally:
            answer.is_open = False
        return answer

    async def _read(self, response: httpx.Response, answer: Answer) -> None:
        loop = asyncio.get_running_loop()
        text: list[str] = []
        async for line in response.aiter_lines():
            if not line.startswith("data:"):
                continue
            now_s, data = loop.time(), line[5:].strip()
            if data == "[DONE]":
                answer.finished_s = now_s
                break
            chunk = json.loads(data)
            if "error" in chunk:
                answer.error, answer.message = "error in the stream", str(chunk["error"])[:500]
                return
            part = _text(chunk)
            # An answer that ends with its first token shows none: then its end is when that token came.
            if part is not None or (_is_end(chunk) and not answer.chunks_s):
                text.append(part or "")
                answer.chunks_s.append(now_s)
            if chunk.get("usage"):
                _count(answer, chunk["usage"])
        answer.text = "".join(text)
        answer.num_tokens = answer.num_tokens or len(answer.chunks_s)
        if answer.finished_s is None:
            answer.error = "cut off"
        elif not answer.chunks_s:
            answer.error = "empty answer"

    async def get(self, path: str) -> dict[str, Any]:
        """JSON of an address. Raises Unavailable or Unauthorized."""
        found: dict[str, Any] = (await self._get(path)).json()
        return found

    async def get_text(self, path: str) -> str:
        """What an address says. Raises Unavailable or Unauthorized."""
        return (await self._get(path)).text

    async def _get(self, path: str) -> httpx.Response:
        try:
            response = await self._client.get(path)
        except httpx.TransportError as exc:
            raise Unavailable(
                f"no answer from {self.url} ({type(exc).__name__}); start the stack, or name its gateway with --url."
            ) from exc
        if response.status_code in (401, 403):
            raise Unauthorized(f"{self.url} asks for a key; set NANOCHAT_API_KEY.")
        if response.status_code != 200:
            raise Unavailable(f"{self.url}{path} answered {response.status_code}: {response.text[:200]}")
        return response


def draw(dialect: Dialect, num_tokens: int, *, seed: object) -> Prompt:
    """A prompt of so many token ids or words; the same seed gives the same."""
    if dialect.prompts == "ids":
        return token_ids(num_tokens, dialect.num_ids, seed=seed)
    text = words(num_tokens, seed=seed)
    return Messages.of(text) if dialect.prompts == "chat" else text


def _body(dialect: Dialect, prompt: Prompt, max_tokens: int) -> dict[str, Any]:
    """Without a temperature, the usual 1 where the server can be told not to stop, and one that hardly stops else."""
    temperature = dialect.temperature
    if temperature is None:
        temperature = 1.0 if dialect.takes_ignore_eos else _STOP_FREE_TEMPERATURE
    asked = {"messages": prompt.as_json()} if isinstance(prompt, Messages) else {"prompt": prompt}
    return {
        **asked,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
        **({"ignore_eos": True} if dialect.takes_ignore_eos else {}),
    }


def _text(chunk: dict[str, Any]) -> str | None:
    """What a chunk adds to the text; None where it only opens or ends it. A token may add nothing that can be shown."""
    if not chunk.get("choices"):
        return None
    choice = chunk["choices"][0]
    if "delta" in choice:
        return choice["delta"].get("content") or None
    text = choice.get("text") or ""
    return None if not text and choice.get("finish_reason") else text


def _is_end(chunk: dict[str, Any]) -> bool:
    return bool(chunk.get("choices") and chunk["choices"][0].get("finish_reason"))


def _count(answer: Answer, usage: dict[str, Any]) -> None:
    answer.num_tokens = usage["completion_tokens"]
    answer.prompt_tokens = usage["prompt_tokens"]
    answer.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
