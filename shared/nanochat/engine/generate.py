"""The offline loop: prompts in, completions out, for evaluations, reinforcement learning and the terminal.

Slots are refilled as rows finish, so prompts of any length run side by side. The service that answers many clients has
its own loop over the same step.
"""

import contextlib
from collections import deque
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import Protocol, Self

import torch

from nanochat.engine.backend import Backend, Weights, make_backend
from nanochat.engine.grammar_compiler import Grammar
from nanochat.engine.params import SamplingParams
from nanochat.engine.sequence import FinishReason, Sequence
from nanochat.engine.slots import Row, Slots
from nanochat.engine.step import DEFAULT_BUDGET, run_step
from nanochat.errors import InvalidRequest
from nanochat.model.gpt import GPT
from nanochat.protocol.generate import Delta, Finished, ToolCall
from nanochat.tokenizer.bpe import Tokenizer


class Evaluates(Protocol):
    """The calculator, as far as the engine knows it: an expression's value as text, or None. Never raises."""

    def evaluate(self, expression: str) -> str | None: ...


@dataclass(frozen=True, kw_only=True)
class Completion:
    """One choice. token_ids are the generated ones; is_sampled is False beside those that a tool forced."""

    text: str
    token_ids: list[int]
    is_sampled: list[bool]
    finish_reason: FinishReason
    tool_calls: list[ToolCall] = field(default_factory=list)


class Engine:
    """A backend's slots and a tokenizer. Without a calculator, every call has an empty result. One thread at a time."""

    def __init__(self, backend: Backend, tokenizer: Tokenizer, calculator: Evaluates | None = None) -> None:
        self._backend = backend
        self._tokenizer = tokenizer
        self._calculator = calculator

    @classmethod
    def of(
        cls,
        model: GPT,
        tokenizer: Tokenizer,
        calculator: Evaluates | None = None,
        *,
        num_slots: int = 16,
        max_len: int | None = None,
        weights: Weights = "fp32",
    ) -> Self:
        """An engine for a model, which may go on being trained between two calls.

        max_len bounds prompt and answer together; the model's context where it is None. Raises InvalidConfig where int8
        weights cannot be had.
        """
        length = min(max_len or model.config.sequence_len, model.config.sequence_len)
        return cls(make_backend(model, num_slots=num_slots, max_len=length, weights=weights), tokenizer, calculator)

    def generate(
        self,
        prompts: Seq[Seq[int]],
        params: SamplingParams | Seq[SamplingParams] | None = None,
        grammar: Grammar | None = None,
    ) -> list[list[Completion]]:
        """params.n completions for each prompt (token ids, BOS first), in order; params for all prompts, or one each.

        All follow the grammar, if one is given: GrammarCompiler().compile(response_format, tokenizer). A prompt is
        computed once for all of its choices that begin together. Raises ContextTooLong before any runs.
        """
        each = _each(params, len(prompts))
        choices = [self._choices(prompt, p, grammar, has_events=False) for prompt, p in zip(prompts, each, strict=True)]
        for _ in self._run([sequence for group in choices for sequence in group]):
            pass
        return [[_completion(sequence) for sequence in group] for group in choices]

    def completed(
        self, prompts: Seq[Seq[int]], params: SamplingParams | Seq[SamplingParams] | None = None
    ) -> Iterator[tuple[int, Completion]]:
        """A completion of each prompt as soon as it has ended, with the prompt's index. Leave off at any time.

        Raises ContextTooLong before any runs.
        """
        each = _each(params, len(prompts))
        sequences = [
            self._choices(prompt, p, None, has_events=False)[0] for prompt, p in zip(prompts, each, strict=True)
        ]
        indices = {id(sequence): index for index, sequence in enumerate(sequences)}
        for sequence in self._run(sequences):
            yield indices[id(sequence)], _completion(sequence)

    def stream(
        self, prompt: Seq[int], params: SamplingParams | None = None, grammar: Grammar | None = None
    ) -> Iterator[Delta | ToolCall | Finished]:
        """One choice, told as it comes; ends with Finished. Leave off at any time."""
        params = params or SamplingParams()
        if params.n != 1:
            raise InvalidRequest(f"n is {params.n}; a stream has one choice.", param="n")
        (sequence,) = self._choices(prompt, params, grammar)
        row = Row(sequence, slot=0)
        while not sequence.is_finished:
            with torch_threads(self._backend.num_torch_threads):
                run_step(self._backend, [row])
            yield from sequence.take_events()
            self._answer(sequence)
            yield from sequence.take_events()
        assert sequence.finish_reason is not None
        yield Finished(finish_reason=sequence.finish_reason, completion_tokens=sequence.num_sampled)

    def _run(self, sequences: Seq[Sequence]) -> Iterator[Sequence]:
        """Each sequence once it has ended; as many side by side as there are slots."""
        waiting, slots = deque(sequences), Slots(self._backend.num_slots)
        while waiting or slots.rows:
            slots.admit(waiting)
            with torch_threads(self._backend.num_torch_threads):
                sampled = run_step(self._backend, slots.rows, budget=DEFAULT_BUDGET).sampled
            for row in sampled:
                self._answer(row.sequence)
                if row.sequence.is_finished:
                    slots.release(row)
                    yield row.sequence

    def _choices(
        self, prompt: Seq[int], params: SamplingParams, grammar: Grammar | None, *, has_events: bool = True
    ) -> list[Sequence]:
        ids = list(prompt)
        choices = [
            Sequence(ids, params, self._tokenizer, self._backend.max_len, index=index, has_events=has_events)
            for index in range(params.n)
        ]
        if grammar is not None:
            for sequence in choices:
                sequence.grammar = grammar.begin()
        return choices

    def _answer(self, sequence: Sequence) -> None:
        if sequence.expression is not None:
            sequence.answer(self._calculator.evaluate(sequence.expression) if self._calculator else None)


@contextlib.contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """So many threads for torch's own operations meanwhile; None: as many as there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _each(params: SamplingParams | Seq[SamplingParams] | None, num_prompts: int) -> Seq[SamplingParams]:
    if params is None or isinstance(params, SamplingParams):
        return [params or SamplingParams()] * num_prompts
    return params


def _completion(sequence: Sequence) -> Completion:
    assert sequence.finish_reason is not None
    return Completion(
        text=sequence.text,
        token_ids=sequence.generated_ids,
        is_sampled=sequence.is_sampled,
        finish_reason=sequence.finish_reason,
        tool_calls=sequence.tool_calls,
    )
