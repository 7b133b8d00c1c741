"""Between gateway and inference: POST /v1/generate, answered as server-sent events, one JSON object each.

    started -> (delta | tool_call)* per choice -> finished per choice -> done        the way of a good answer
    ... -> error                                                                     it broke after the first event

An error before the first event is an HTTP status with {"error": {"code", "message", "param"}}.
"""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from nanochat.protocol import Strict

MAX_REGEX_CHARS = 8192
MAX_FORMAT_CHOICES = 1024


class TextPart(Strict):
    type: Literal["text"] = "text"
    text: str


class PythonPart(Strict):
    """An expression that the model gave to the calculator."""

    type: Literal["python"] = "python"
    text: str


class PythonOutputPart(Strict):
    """The calculator's result."""

    type: Literal["python_output"] = "python_output"
    text: str


Part = Annotated[TextPart | PythonPart | PythonOutputPart, Field(discriminator="type")]


class Message(Strict):
    """One message of a conversation. Only an assistant's content may be a list of parts."""

    role: Literal["system", "user", "assistant"]
    content: str | list[Part]


class TextFormat(Strict):
    type: Literal["text"] = "text"


class JsonObjectFormat(Strict):
    """Any JSON object."""

    type: Literal["json_object"] = "json_object"


class JsonSchema(Strict):
    """`schema` is a JSON schema. The answer always holds to it, whatever `strict` says; the others change nothing."""

    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True)

    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class JsonSchemaFormat(Strict):
    type: Literal["json_schema"] = "json_schema"
    json_schema: JsonSchema


class RegexFormat(Strict):
    """The whole answer matches the regular expression."""

    type: Literal["regex"] = "regex"
    regex: str = Field(min_length=1, max_length=MAX_REGEX_CHARS)


class ChoiceFormat(Strict):
    """The answer is one of the texts."""

    type: Literal["choice"] = "choice"
    choices: list[Annotated[str, Field(min_length=1)]] = Field(min_length=1, max_length=MAX_FORMAT_CHOICES)


ResponseFormat = Annotated[
    TextFormat | JsonObjectFormat | JsonSchemaFormat | RegexFormat | ChoiceFormat, Field(discriminator="type")
]


class GenerateRequest(Strict):
    """What to continue, and how to sample. Exactly one of messages, prompt and prompt_token_ids is given.

    `messages` ends with a user message and is rendered as a conversation; `prompt` is plain text after BOS;
    `prompt_token_ids` is taken as it is.
    """

    model: str
    messages: list[Message] | None = None
    prompt: str | None = None
    prompt_token_ids: list[int] | None = None
    max_tokens: int | None = Field(
        default=None, ge=1, description="Sampled tokens a choice; null: what the context leaves."
    )
    temperature: float = Field(default=1.0, ge=0, le=2, description="0 takes the largest logit.")
    top_k: int = Field(default=0, ge=0, le=200, description="0: off.")
    top_p: float = Field(default=1.0, gt=0, le=1)
    min_p: float = Field(default=0.0, ge=0, le=1, description="0: off.")
    repetition_penalty: float = Field(default=1.0, ge=1e-3, le=1e3, description="Over prompt and answer; 1: off.")
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    logit_bias: dict[int, float] = Field(default_factory=dict, description="Token ids, each from -100 to 100.")
    response_format: ResponseFormat | None = Field(default=None, description="What the answer must look like.")
    stop: list[str] = Field(default_factory=list, max_length=4, description="At most 1024 characters each.")
    seed: int | None = None
    n: int = Field(default=1, ge=1, le=16)
    logprobs: int | None = Field(
        default=None, ge=0, le=20, description="Alternatives a token; 0: the sampled one only."
    )
    prompt_logprobs: bool = Field(default=False, description="Also for the prompt's tokens (echo).")


class TokenLogprob(Strict):
    """`token` is the token's text, with U+FFFD where its bytes are no whole character; `bytes` are exact."""

    token_id: int
    token: str
    bytes: list[int]
    logprob: float
    top: list["TokenLogprob"] = Field(default_factory=list)


class Started(Strict):
    type: Literal["started"] = "started"
    model: str
    checkpoint: str
    worker: int = 0
    prompt_tokens: int
    cached_tokens: int = 0
    prompt_logprobs: list[TokenLogprob | None] | None = None


class Delta(Strict):
    """New text of one choice: whole characters only, never half of one. `num_tokens` is how many tokens it took."""

    type: Literal["delta"] = "delta"
    index: int = 0
    text: str
    num_tokens: int
    logprobs: list[TokenLogprob] | None = None


class ToolCall(Strict):
    """A calculator call that has been answered. `start` and `end` are character offsets in the choice's whole text of
    the span "expression=result" that stands there as plain content. `result` is null when there was none."""

    type: Literal["tool_call"] = "tool_call"
    index: int = 0
    expression: str
    result: str | None
    start: int
    end: int


class Finished(Strict):
    type: Literal["finished"] = "finished"
    index: int = 0
    finish_reason: Literal["stop", "length"]
    completion_tokens: int


class Done(Strict):
    type: Literal["done"] = "done"
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


class GenerateError(Strict):
    type: Literal["error"] = "error"
    code: str
    message: str


GenerateEvent = Started | Delta | ToolCall | Finished | Done | GenerateError
generate_event: TypeAdapter[GenerateEvent] = TypeAdapter(Annotated[GenerateEvent, Field(discriminator="type")])


class ServedModel(Strict):
    """GET /v1/info of an inference replica; 503 while it serves none."""

    model: str
    checkpoint: str
    context_length: int
    vocab_size: int
    num_parameters: int
    created: int = Field(description="Unix time at which the checkpoint was written.")
