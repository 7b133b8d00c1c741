"""Scoring of answers, with a scripted engine in place of a trained model."""

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from nanochat.engine.generate import Engine
from nanochat.engine.params import SamplingParams
from nanochat.errors import InvalidConfig
from nanochat.evals.chat import ChatScore, score_task
from nanochat.evals.samples import sample_chats, sample_texts
from nanochat.model.gpt import GPT
from nanochat.tasks.arithmetic import Arithmetic
from nanochat.tasks.smalltalk import Smalltalk
from nanochat.tasks.spelling import Spelling
from nanochat.tokenizer.bpe import Tokenizer


class Scripted:
    """Answers with the given texts, in order."""

    def __init__(self, answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.params: list[SamplingParams] = []

    def generate(self, prompts: Sequence[Sequence[int]], params: SamplingParams) -> list[list[Any]]:
        self.params.append(params)
        return [[SimpleNamespace(text=self.answers.pop(0))] for _ in prompts]


def test_accuracy_and_its_error_are_those_of_the_answers(tokenizer: Tokenizer) -> None:
    task = Arithmetic("held_out")[:10]
    answers = [f"The answer is {conversation.answer}." for conversation in task]
    answers[2] = "The answer is 123456789."
    engine = Scripted(answers)
    done: list[int] = []
    score = score_task(cast(Engine, engine), tokenizer, task, chunk_size=4, on_progress=done.append)
    assert score.accuracy == 0.9 and score.num_examples == 10
    assert score.stderr == pytest.approx(math.sqrt(0.9 * 0.1 / 10))
    assert [failure.answer for failure in score.failures] == ["The answer is 123456789."]
    assert done == [4, 8, 10]
    assert all(params.temperature == 0 for params in engine.params)


def test_a_task_without_checkable_answers_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidConfig, match="no checkable answers"):
        score_task(cast(Engine, Scripted([])), tokenizer, Smalltalk("held_out"), chunk_size=4)


def test_a_random_model_answers_and_is_scored(model: GPT, tokenizer: Tokenizer) -> None:
    score = score_task(Engine.of(model, tokenizer, num_slots=4), tokenizer, Spelling("held_out")[:6])
    assert isinstance(score, ChatScore)
    assert score.accuracy == 0.0


def test_samples_come_back_beside_their_prompts(model: GPT, tokenizer: Tokenizer) -> None:
    engine = Engine.of(model, tokenizer, num_slots=4)
    assert [sample.prompt for sample in sample_texts(engine, tokenizer, ["a", "b"], max_tokens=3)] == ["a", "b"]
    assert [sample.prompt for sample in sample_chats(engine, tokenizer, ["Hi"], max_tokens=3)] == ["Hi"]
