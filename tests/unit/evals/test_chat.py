"""Scoring of answers, with a scripted engine in place of a trained model, and of letters that a model favours."""

import math
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from nanochat.config import GPTConfig
from nanochat.engine.generate import Engine
from nanochat.engine.params import SamplingParams
from nanochat.errors import InvalidConfig
from nanochat.evals.chat import ChatScore, is_categorical, longest_prompt, score_categorical, score_generated
from nanochat.evals.likelihood import Scorer
from nanochat.evals.samples import sample_chats, sample_texts
from nanochat.model.gpt import GPT
from nanochat.protocol.generate import Message
from nanochat.tasks.arithmetic import Arithmetic
from nanochat.tasks.base import Conversation, Task
from nanochat.tasks.smalltalk import Smalltalk
from nanochat.tasks.spelling import Spelling
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.chat import render_prompt
from tests.decisive_model import decisive_model


class Scripted:
    """Answers with the given texts, the last prompt first."""

    def __init__(self, answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.params: list[SamplingParams] = []

    def completed(self, prompts: Sequence[Sequence[int]], params: SamplingParams) -> Iterator[tuple[int, Any]]:
        self.params.append(params)
        for index in reversed(range(len(prompts))):
            yield index, SimpleNamespace(text=self.answers[index])


class Letters(Task):
    """Twelve questions with four letters, answered by the first three in turn; the last has no fourth."""

    is_checkable = True
    baseline = 0.25

    def __init__(self, letters: Sequence[str] = "ABCD") -> None:
        super().__init__("held_out", 12)
        self.letters = tuple(letters)

    def example(self, index: int) -> Conversation:
        question = Message(role="user", content=f"Question {index}: which letter?")
        choices = self.letters[:3] if index == 11 else self.letters
        answer = self.letters[index % 3]
        return Conversation(
            messages=[question, Message(role="assistant", content=answer)], answer=answer, choices=choices
        )


def test_accuracy_and_its_error_are_those_of_the_answers(tokenizer: Tokenizer) -> None:
    task = Arithmetic("held_out")[:150]
    answers = [f"The answer is {conversation.answer}." for conversation in task]
    for index in range(15):
        answers[index] = "The answer is 123456789."
    engine = Scripted(answers)
    done: list[int] = []
    score = score_generated(cast(Engine, engine), tokenizer, task, done.append)
    assert score.accuracy == 0.9 and score.num_examples == 150
    assert score.stderr == pytest.approx(math.sqrt(0.9 * 0.1 / 150))
    assert [failure.answer for failure in score.failures] == ["The answer is 123456789."] * 5
    assert score.failures[0].request == task[14].messages[-2].content  # the first to have ended
    assert done == [64, 128, 150]
    assert all(params.temperature == 0 for params in engine.params)


def test_a_task_without_checkable_answers_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="no checkable answers"):
        is_categorical(Smalltalk("held_out"))


def test_a_random_model_answers_and_is_scored(model: GPT, tokenizer: Tokenizer) -> None:
    score = score_generated(Engine.of(model, tokenizer, num_slots=4), tokenizer, Spelling("held_out")[:6])
    assert isinstance(score, ChatScore)
    assert score.accuracy == 0.0


def test_centered_accuracy_is_what_is_above_guessing() -> None:
    score = ChatScore(num_right=40, num_examples=100, baseline=0.25)
    assert score.centered == pytest.approx(0.2)
    assert score.centered_stderr == pytest.approx(score.stderr / 0.75)


def test_the_letter_with_the_largest_logit_is_the_answer(tokenizer: Tokenizer) -> None:
    """Every letter on its own, by the plain model's logits after assistant_start; a shorter list is kept to."""
    config = GPTConfig(sequence_len=128, vocab_size=tokenizer.vocab_size, n_layer=2, n_head=2, n_kv_head=2, n_embd=32)
    model = decisive_model(config, seed=2)
    task = Letters()
    num_right = 0
    for conversation in task:
        ids = render_prompt(tokenizer, conversation.messages[:-1])
        with torch.inference_mode():
            logits = model(torch.tensor([ids]))[0, -1]
        favourite = max(conversation.choices, key=lambda letter: float(logits[tokenizer.encode(letter)[0]]))
        num_right += favourite == conversation.answer
    assert 0 < num_right < 12, "a model that says something"
    assert is_categorical(task)
    score = score_categorical(Scorer.of(model), tokenizer, task)
    assert (score.num_right, score.num_examples, score.baseline) == (num_right, 12, 0.25)
    assert len(score.failures) == min(5, 12 - num_right)


def test_a_choice_that_is_not_one_token_is_refused_by_name(model: GPT, tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidConfig, match="choice 'BC' is 2 tokens of the tokenizer of 265"):
        score_categorical(Scorer.of(model), tokenizer, Letters(["A", "BC", "D"]))


def test_a_question_longer_than_the_context_loses_its_left_end(model: GPT, tokenizer: Tokenizer) -> None:
    task = Letters()
    assert longest_prompt(tokenizer, task) == 30
    score = score_categorical(Scorer.of(model, max_len=20), tokenizer, task)
    assert score.num_examples == 12


def test_samples_come_back_beside_their_prompts(model: GPT, tokenizer: Tokenizer) -> None:
    engine = Engine.of(model, tokenizer, num_slots=4)
    assert [sample.prompt for sample in sample_texts(engine, tokenizer, ["a", "b"], max_tokens=3)] == ["a", "b"]
    assert [sample.prompt for sample in sample_chats(engine, tokenizer, ["Hi"], max_tokens=3)] == ["Hi"]
