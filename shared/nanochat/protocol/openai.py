"""Between the world and the gateway: chat completions and completions in OpenAI's shapes, requests and answers.

A request is checked strictly: an unknown key is refused by name, null means absent (SDKs send nulls), and an OpenAI
option that this project lacks is taken at its neutral value only, so that nothing is silently ignored. What is to be
checked across messages (order of roles, sizes) is the gateway's; generate.py is what it makes of a request.

Answers are dumped with exclude_unset: a field given as None is a null on the wire, a field not given is absent.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from nanochat.errors import InvalidRequest
from nanochat.protocol import Strict
from nanochat.protocol.generate import Part, ResponseFormat, TextFormat

MAX_CHOICES = 16
MAX_STOPS = 4
MAX_STOP_CHARS = 1024
# Tags of unions are written in angle brackets, so that `invalid_request` can leave them out of a field's path.
_PARTS = "<parts>"


def _list_or_text(value: Any) -> str:
    return _PARTS if isinstance(value, list) else "<text>"


def _prompt_kind(value: Any) -> str:
    if not isinstance(value, list):
        return "<text>"
    if value and isinstance(value[0], list):
        return "<lists of token ids>"
    return "<token ids>" if value and isinstance(value[0], int) else "<texts>"


def _only(*neutral: Any) -> AfterValidator:
    """Accept an option at values that change nothing; refuse any other one by name."""

    def check(value: Any) -> Any:
        if value in neutral:
            return value
        raise PydanticCustomError("not_supported", "this server does not support it; leave it out")

    return AfterValidator(check)


Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]
# JSON has no numbers as keys.
TokenIdText = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
Stops = Annotated[
    Annotated[Stop, Tag("<text>")] | Annotated[list[Stop], Field(max_length=MAX_STOPS), Tag(_PARTS)],
    Discriminator(_list_or_text),
]
TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
Prompt = Annotated[
    Annotated[str, Tag("<text>")]
    | Annotated[list[str], Field(min_length=1), Tag("<texts>")]
    | Annotated[TokenIds, Tag("<token ids>")]
    | Annotated[list[TokenIds], Tag("<lists of token ids>")],
    Discriminator(_prompt_kind),
]


# Requests


class _Request(Strict):
    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any) -> Any:
        return {key: item for key, item in value.items() if item is not None} if isinstance(value, dict) else value


class ToolCallRecord(Strict):
    """A calculator call in a choice's text: `start` and `end` are the character offsets of its span there."""

    index: int = 0
    expression: str
    result: str | None = None
    start: int
    end: int


class Extension(Strict):
    """What this project adds to OpenAI's shapes, under the key `nanochat`."""

    tool_calls: list[ToolCallRecord]


class ChatMessage(_Request):
    """One message. `content` is text or parts; an assistant's may hold python and python_output parts.

    An answer may be sent back as it was received: its `nanochat.tool_calls` then say which spans were calls.
    """

    role: Literal["system", "user", "assistant"]
    content: Annotated[
        Annotated[str, Tag("<text>")] | Annotated[list[Part], Field(min_length=1), Tag(_PARTS)],
        Discriminator(_list_or_text),
    ]
    nanochat: Extension | None = None


class StreamOptions(_Request):
    include_usage: bool = False
    include_obfuscation: Annotated[bool, _only(False)] = False


class _SamplingRequest(_Request):
    """What chat completions and completions share."""

    model: str
    temperature: float | None = Field(default=None, ge=0, le=2, description="Null: the deployment's.")
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0, le=200, description="0: off.")
    stop: Stops = Field(default_factory=list)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    n: int = Field(default=1, ge=1, le=MAX_CHOICES)
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: str | None = Field(default=None, description="The caller's own name for its user; neither kept nor logged.")
    min_p: float = Field(default=0.0, ge=0, le=1, description="0: off.")
    repetition_penalty: float = Field(default=1.0, ge=1e-3, le=1e3, description="Over prompt and answer; 1: off.")
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    logit_bias: dict[TokenIdText, Annotated[float, Field(ge=-100, le=100)]] = Field(default_factory=dict)
    response_format: ResponseFormat | None = Field(default=None, description="On completions, an extension.")

    @model_validator(mode="after")
    def _stream_options_need_a_stream(self) -> "_SamplingRequest":
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is only for a stream; set stream to true or leave it out")
        return self

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop

    @property
    def token_biases(self) -> dict[int, float]:
        return {int(token_id): bias for token_id, bias in self.logit_bias.items()}

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


class ChatCompletionRequest(_SamplingRequest):
    """The body of POST /v1/chat/completions."""

    messages: list[ChatMessage]
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool = False
    top_logprobs: int = Field(default=0, ge=0, le=20)
    tools: Annotated[Any, _only([])] = None
    tool_choice: Annotated[Any, _only("none", "auto")] = None
    store: Annotated[Any, _only(False)] = None
    service_tier: Annotated[Any, _only("auto", "default")] = None

    @model_validator(mode="after")
    def _fields_agree(self) -> "ChatCompletionRequest":
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs is only for logprobs; set logprobs to true or leave it out")
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens differ; give one of them")
        return self

    @property
    def token_limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


class CompletionRequest(_SamplingRequest):
    """The body of POST /v1/completions. `prompt` is a text, texts, token ids, or lists of token ids."""

    prompt: Prompt
    max_tokens: int = Field(default=16, ge=0, description="0: only the prompt, with `echo`.")
    logprobs: int | None = Field(default=None, ge=0, le=20)
    echo: bool = False
    suffix: Annotated[Any, _only("")] = None
    best_of: Annotated[Any, _only(1)] = None

    @model_validator(mode="after")
    def _format_needs_an_answer(self) -> "CompletionRequest":
        if self.max_tokens == 0 and self.response_format not in (None, TextFormat()):
            raise ValueError("response_format is for an answer and max_tokens 0 asks for none; leave one of them out")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each prompt by itself."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        ids = [item for item in self.prompt if isinstance(item, int)]
        return [ids] if ids else [item for item in self.prompt if not isinstance(item, int)]


class TokenStreamRequest(_Request):
    """The body of POST /chat/completions, the plain token stream. Its defaults suit a small chat model."""

    messages: list[ChatMessage]
    model: str | None = None
    temperature: float = Field(default=0.8, ge=0, le=2)
    top_k: int = Field(default=50, ge=0, le=200)
    max_tokens: int = Field(default=512, ge=1)
    stream: Annotated[bool, _only(True)] = True


def invalid_request(error: ValidationError) -> InvalidRequest:
    """The first complaint of pydantic as one sentence; `param` is the field's path, such as messages[0].content."""
    first = error.errors(include_url=False)[0]
    path = _path(first["loc"])
    found = repr(first["input"])
    found = found if len(found) <= 80 else found[:77] + "..."
    match first["type"]:
        case "extra_forbidden":
            return InvalidRequest(f"{path} is not a known field; remove it or correct its name.", param=path)
        case "missing":
            return InvalidRequest(f"{path} is required; add it.", param=path)
        case "union_tag_invalid" | "union_tag_not_found":
            param = f"{path}.type"
            return InvalidRequest(f"{param} must be one of {first['ctx'].get('expected_tags', Part)}.", param=param)
        case "value_error":
            message = str(first["ctx"]["error"])
            return InvalidRequest(f"{message}.", param=path or message.split(" ", 1)[0])
        case "model_type" | "model_attributes_type" if not path:
            return InvalidRequest("The body is not a JSON object; send one.")
        case _:
            return InvalidRequest(f"{path} is {found}: {first['msg']}.", param=path)


def _path(location: tuple[int | str, ...]) -> str:
    """("messages", 0, "content", "<parts>", 1, "python", "text") as messages[0].content[1].text."""
    path = ""
    for position, part in enumerate(location):
        is_tag = str(part).startswith("<") or (position >= 2 and location[position - 2] == _PARTS)
        is_tag = is_tag or part == "[key]" or (position == 1 and location[0] == "response_format")
        if isinstance(part, int):
            path += f"[{part}]"
        elif not is_tag:
            path += f".{part}" if path else part
    return path


# Answers


class PromptTokensDetails(Strict):
    cached_tokens: int


class Usage(Strict):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


FinishReason = Literal["stop", "length"]


class TopLogprob(Strict):
    token: str
    logprob: float
    bytes: list[int]


class ChatTokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChatLogprobs(Strict):
    content: list[ChatTokenLogprob]
    refusal: None


class AssistantMessage(Strict):
    role: Literal["assistant"]
    content: str
    refusal: None
    nanochat: Extension


class ChatChoice(Strict):
    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class ChatCompletion(Strict):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage


class ChatDelta(Strict):
    role: Literal["assistant"] | None = None
    content: str | None = None


class ChatChunkChoice(Strict):
    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None


class ChatCompletionChunk(Strict):
    """`nanochat.tool_calls` holds a call where it happened, and all calls of a choice where it finishes."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChunkChoice]
    usage: Usage | None = None
    nanochat: Extension | None = None


class CompletionLogprobs(Strict):
    """Lists of equal length, a token each. Null where there is nothing to predict from: the first token of a prompt."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(Strict):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason | None
    nanochat: Extension | None = None


class Completion(Strict):
    """An answer of /v1/completions, and each chunk of one."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: Usage | None = None


class ModelExtension(Strict):
    checkpoint: str
    context_length: int
    vocab_size: int
    num_parameters: int


class Model(Strict):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "nanochat"
    nanochat: ModelExtension


class ModelList(Strict):
    object: Literal["list"] = "list"
    data: list[Model]


class ErrorDetail(Strict):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(Strict):
    """Every error of the gateway, also as a frame of a stream that broke."""

    error: ErrorDetail
