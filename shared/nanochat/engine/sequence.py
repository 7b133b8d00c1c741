"""One row's life: its prompt, the tokens sampled for it, those forced on it by a tool, its text, and its end.

The tool protocol: the model samples python_start, an expression, python_end; the row waits for the calculator; then
output_start, the result and output_end are forced, which are no sampled tokens. In the text the whole span reads
`expression=result` and a line break; without a result, `expression=` and a line break. Stop strings are looked for in
the model's own text only: never in such a span, nor across its borders, so that a span is always whole.

Knows nothing of slots, batches or tensors (step.py), and does not call the calculator: whoever drives it does.
"""

import random
from collections.abc import Sequence as Seq
from typing import Literal

from nanochat.engine.grammar import GrammarState
from nanochat.engine.params import SamplingParams
from nanochat.engine.penalties import Penalties
from nanochat.engine.text import TextStream
from nanochat.errors import ContextTooLong, InvalidRequest
from nanochat.protocol.generate import Delta, TokenLogprob, ToolCall
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.special import (
    ASSISTANT_END,
    BOS,
    OUTPUT_END,
    OUTPUT_START,
    PYTHON_END,
    PYTHON_START,
    SPECIAL_TOKENS,
)

FinishReason = Literal["stop", "length"]
Event = Delta | ToolCall
# A model that calls in circles ends by max_tokens; this bounds what it costs. Calls beyond it have no result.
MAX_TOOL_CALLS = 32


class Sequence:
    """`pending` are the tokens the model has not seen yet, never empty while the row can run.

    `expression` is set while the row waits for the calculator: call answer() then. `finish_reason` is set at the end:
    "stop" for assistant_end, BOS or a stop string, "length" for max_tokens or a full context. Raises ContextTooLong
    where the prompt leaves no room for a token, InvalidRequest where logit_bias names a token that does not exist.
    has_events: whether take_events() will be asked; what nobody asks for is not made.
    """

    def __init__(
        self,
        prompt_ids: list[int],
        params: SamplingParams,
        tokenizer: Tokenizer,
        context_length: int,
        *,
        index: int = 0,
        has_events: bool = True,
    ) -> None:
        assert prompt_ids, "a prompt has at least BOS"
        _check_biased_tokens(params, tokenizer)
        if len(prompt_ids) >= context_length:
            raise ContextTooLong(
                f"the prompt has {len(prompt_ids)} tokens; the model takes {context_length}, its answer included. "
                "Shorten it or start a new chat.",
                param="messages",
            )
        self.params = params
        self.index = index
        self.prompt_ids = prompt_ids  # not copied: choices of one prompt know each other by it
        self.generated_ids: list[int] = []
        self.is_sampled: list[bool] = []  # beside generated_ids: False where a tool forced the token
        self.num_sampled = 0
        self.num_cached = 0  # tokens of the prompt that were found computed
        self.pending = list(prompt_ids)
        self.expression: str | None = None
        self.tool_calls: list[ToolCall] = []
        self.finish_reason: FinishReason | None = None
        self.grammar: GrammarState | None = None  # set before the row runs, where response_format asks for one
        self.penalties = Penalties(params, prompt_ids) if params.changes_logits else None
        self._tokenizer = tokenizer
        # Looked up once, not once a token.
        self._end_ids = (tokenizer.special_id(ASSISTANT_END), tokenizer.special_id(BOS))
        self._python_start, self._python_end = tokenizer.special_id(PYTHON_START), tokenizer.special_id(PYTHON_END)
        self._context_length = context_length
        # A generator of the row's own, on the CPU: the same numbers on every device. Each choice has its stream.
        self._random = random.Random() if params.seed is None else random.Random(f"{params.seed}/{index}")
        self._stream = TextStream(params.stop)
        self._span_start: int | None = None
        self._has_events = has_events
        self._events: list[Event] = []
        self._num_shown = 0  # characters already in events
        self._num_untold = 0  # sampled tokens not yet counted in an event
        self._logprobs: list[tuple[int, TokenLogprob]] = []  # with the position where each token begins

    @property
    def text(self) -> str:
        """All text so far: of whole characters, without a stop string or the start of one."""
        return self._stream.text

    @property
    def is_finished(self) -> bool:
        return self.finish_reason is not None

    @property
    def num_tokens(self) -> int:
        return len(self.prompt_ids) + len(self.generated_ids)

    def next_uniform(self) -> float:
        """The number in [0, 1) for the next draw; call it once a sampled token."""
        return self._random.random()

    def append(self, token_id: int, logprob: TokenLogprob | None = None) -> None:
        """Take a sampled token. Afterwards the row runs on, waits with an `expression`, or is finished."""
        assert not self.is_finished and self.expression is None, "this row takes no token now"
        self.pending = []
        self._push(token_id, sampled=True)
        if self.grammar is not None:
            self.grammar.accept(token_id)
        if token_id in self._end_ids:
            self._finish("stop")
            return
        if logprob is not None:
            self._logprobs.append((self._stream.position, logprob))
        if token_id == self._python_start and self._span_start is None:
            self._stream.flush()
            self._span_start = len(self._stream.text)
        elif token_id == self._python_end and self._span_start is not None:
            self._stream.flush()
            self.expression = self._stream.text[self._span_start :]
        else:
            self._stream.push(self._tokenizer.token_bytes(token_id), may_stop=self._span_start is None)
        if self._stream.is_stopped:
            self._finish("stop")
        elif self.num_sampled == self.params.max_tokens or self.num_tokens >= self._context_length:
            self._finish("length")
        else:
            self._tell()
            if self.expression is not None and len(self.tool_calls) == MAX_TOOL_CALLS:
                self.answer(None)

    def answer(self, result: str | None) -> None:
        """Force the calculator's result; None leaves the output empty."""
        assert self.expression is not None and self._span_start is not None, "this row has not called"
        self._stream.write(f"={result or ''}\n")
        self._tell()
        end = len(self._stream.text) - 1  # without the line break
        call = ToolCall(index=self.index, expression=self.expression, result=result, start=self._span_start, end=end)
        self.tool_calls.append(call)
        self._events.append(call)
        self.expression = self._span_start = None
        special, result_ids = self._tokenizer.special_id, self._tokenizer.encode(result or "")
        forced = [special(OUTPUT_START), *result_ids, special(OUTPUT_END)]
        if self.num_tokens + len(forced) >= self._context_length:
            self._finish("length")
            return
        for token_id in forced:
            self._push(token_id, sampled=False)

    def take_events(self) -> list[Event]:
        """What happened since the last call, in order."""
        events, self._events = self._events, []
        return events

    def token_logprob(self, token_id: int, logprob: float, top: Seq[tuple[int, float]] = ()) -> TokenLogprob:
        """A token and its alternatives in the shape of the protocol; special tokens go by their names."""
        data = self._tokenizer.token_bytes(token_id)
        first_special = self._tokenizer.vocab_size - len(SPECIAL_TOKENS)
        name = SPECIAL_TOKENS[token_id - first_special] if token_id >= first_special else data.decode(errors="replace")
        return TokenLogprob(
            token_id=token_id,
            token=name,
            bytes=list(data),
            logprob=logprob,
            top=[self.token_logprob(other, value) for other, value in top],
        )

    def _push(self, token_id: int, *, sampled: bool) -> None:
        self.generated_ids.append(token_id)
        self.is_sampled.append(sampled)
        self.pending.append(token_id)
        self.num_sampled += sampled
        self._num_untold += sampled
        if self.penalties is not None:
            self.penalties.add(token_id, is_sampled=sampled)

    def _finish(self, reason: FinishReason) -> None:
        self._stream.finish()
        self.finish_reason = reason
        self.expression = None
        self.pending = []
        self._tell()

    def _tell(self) -> None:
        """Make an event of the text released since the last one; tokens that begin in held text wait.

        So those that lie whole behind the place of a stop string are never told: they are no part of the answer.
        """
        if not self._has_events:
            return
        text = self._stream.text[self._num_shown :]
        self._num_shown = len(self._stream.text)
        told = self._told() if self._logprobs else []
        if not text and not (self.is_finished and told):
            return
        logprobs = None if self.params.logprobs is None else told
        self._events.append(Delta(index=self.index, text=text, num_tokens=self._num_untold, logprobs=logprobs))
        self._num_untold = 0
        self._logprobs = self._logprobs[len(told) :]

    def _told(self) -> list[TokenLogprob]:
        """Those of tokens that begin in what is shown; at the end, of all but what a stop string took away."""
        is_end = self.is_finished and not self._stream.is_stopped
        return [logprob for position, logprob in self._logprobs if is_end or position < self._num_shown]


def _check_biased_tokens(params: SamplingParams, tokenizer: Tokenizer) -> None:
    wrong = next((token_id for token_id in params.logit_bias if not 0 <= token_id < tokenizer.vocab_size), None)
    if wrong is not None:
        raise InvalidRequest(
            f"logit_bias has token {wrong}; the vocabulary has ids 0 to {tokenizer.vocab_size - 1}.", param="logit_bias"
        )
