"""Which questions a step asks, and what becomes of the answers; the engine is a scripted one."""

from collections.abc import Sequence
from typing import cast

import pytest

from nanochat.collectives import Peers
from nanochat.engine.generate import Completion, Engine
from nanochat.engine.params import SamplingParams
from nanochat.errors import InvalidConfig
from nanochat.recipes.rollouts import Questions, RolloutSampler
from nanochat.tasks.base import Task
from nanochat.tasks.counting import Counting
from nanochat.tokenizer.bpe import Tokenizer

PARAMS = SamplingParams(temperature=0.7, top_k=20, max_tokens=30, n=2, seed=42)


class Scripted:
    """Gives one right answer to each question, and one that calls the calculator and is wrong."""

    def __init__(self, task: Task, tokenizer: Tokenizer) -> None:
        self.answers = {
            _request(tokenizer, conversation.messages[0].content): conversation.answer for conversation in task
        }
        self.tokenizer = tokenizer
        self.calls: list[tuple[list[list[int]], list[SamplingParams]]] = []

    def generate(self, prompts: list[list[int]], params: list[SamplingParams]) -> list[list[Completion]]:
        self.calls.append((prompts, params))
        return [
            [
                self._completion(f"The answer is {self.answers[tuple(prompt[2:-2])]}.", [True, True, True]),
                self._completion("The answer is -1.", [True, False, True]),
            ]
            for prompt in prompts
        ]

    def _completion(self, text: str, is_sampled: list[bool]) -> Completion:
        return Completion(text=text, token_ids=[1, 2, 3], is_sampled=is_sampled, finish_reason="stop")


def _request(tokenizer: Tokenizer, content: object) -> tuple[int, ...]:
    return tuple(tokenizer.encode(str(content)))


def places(questions: Questions, steps: Sequence[int]) -> list[int]:
    return [question.place for step in steps for question in questions.of_step(step)]


def make(task: Task, tokenizer: Tokenizer, rank: int = 0, ranks: int = 1, **values: int) -> Questions:
    peers = Peers(rank=rank, world_size=ranks)
    return Questions(task, tokenizer, **{"per_step": 4, "max_tokens": 500, "seed": 1, **values}, peers=peers)


def test_a_pass_asks_every_question_once_and_the_next_in_another_order(tokenizer: Tokenizer) -> None:
    task = Counting("train")[:12]
    questions = make(task, tokenizer)
    passes = [
        [tuple(question.prompt_ids) for step in steps for question in questions.of_step(step)]
        for steps in (range(3), range(3, 6))
    ]
    expected = {tuple(question.prompt_ids) for question in make(task, tokenizer, per_step=12).of_step(0)}
    assert len(expected) == 12
    assert set(passes[0]) == set(passes[1]) == expected
    assert passes[0] != passes[1]


def test_ranks_share_out_the_questions_of_a_step(tokenizer: Tokenizer) -> None:
    task = Counting("train")
    one = make(task, tokenizer).of_step(3)
    two = [make(task, tokenizer, rank, 2).of_step(3) for rank in range(2)]
    assert [question for pair in zip(*two, strict=True) for question in pair] == one
    with pytest.raises(InvalidConfig, match="4, which is no multiple of 3 processes"):
        make(task, tokenizer, 0, 3)


def test_questions_that_are_too_long_are_passed_over(tokenizer: Tokenizer) -> None:
    task = Counting("train")
    lengths = [len(question.prompt_ids) for step in range(5) for question in make(task, tokenizer).of_step(step)]
    limit = sorted(lengths)[len(lengths) // 2]
    short = make(task, tokenizer, max_tokens=limit)
    asked = [question for step in range(5) for question in short.of_step(step)]
    assert max(len(question.prompt_ids) for question in asked) <= limit < max(lengths)
    assert asked == [question for step in range(5) for question in short.of_step(step)]
    with pytest.raises(InvalidConfig, match="max_prompt_tokens is 5"):
        make(task, tokenizer, max_tokens=5).of_step(0)


def test_a_steps_answers_are_sampled_in_one_call_and_rewarded_each_by_its_question(tokenizer: Tokenizer) -> None:
    task = Counting("train")[:8]
    engine = Scripted(task, tokenizer)
    sampler = RolloutSampler(cast(Engine, engine), task, make(task, tokenizer), PARAMS, max_len=100, num_slots=8)
    groups = sampler.sample(1)
    assert len(engine.calls) == 1
    assert [[rollout.reward for rollout in group] for group in groups] == [[1.0, 0.0]] * 4
    assert [rollout.num_sampled for rollout in groups[0]] == [3, 2]
    assert groups[0][0].num_tokens == len(groups[0][0].prompt_ids) + 3


def test_seeds_are_the_steps_own_whatever_was_sampled_before(tokenizer: Tokenizer) -> None:
    task = Counting("train")
    engine, other = Scripted(task[:200], tokenizer), Scripted(task[:200], tokenizer)
    task = task[:200]
    for used, steps in ((engine, (0, 1, 2)), (other, (2,))):
        questions = make(task, tokenizer)
        sampler = RolloutSampler(cast(Engine, used), task, questions, PARAMS, max_len=100, num_slots=8)
        for step in steps:
            sampler.sample(step)
    assert engine.calls[2] == other.calls[0]
    seeds = [params.seed for _, each in engine.calls for params in each]
    assert len(set(seeds)) == len(seeds) == 12
    assert {params.temperature for _, each in engine.calls for params in each} == {0.7}
