"""Sampled answers with their rewards: which questions a step asks, and the answers of all of them side by side.

Everything is a function of the seed, the step and the place in it, never of what ran before: a run that goes on from a
checkpoint asks and answers as the one that was not stopped. What is learnt from answers is policy_gradient.py's.
"""

import dataclasses
import functools
import hashlib
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass

from nanochat.collectives import ALONE, Peers
from nanochat.engine.generate import Completion, Engine
from nanochat.engine.params import SamplingParams
from nanochat.errors import InvalidConfig
from nanochat.tasks.base import Conversation, Task
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.chat import render_prompt

log = logging.getLogger(__name__)

# So many questions in a row that are too long: then nearly all of them are.
_MAX_TRIES = 1000


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """One answer. token_ids are the generated ones; is_sampled is False beside those that a tool forced. is_complete:
    the model ended it, and no limit did."""

    prompt_ids: list[int]
    token_ids: list[int]
    is_sampled: list[bool]
    is_complete: bool
    reward: float

    @property
    def num_sampled(self) -> int:
        return sum(self.is_sampled)

    @property
    def num_tokens(self) -> int:
        return len(self.prompt_ids) + len(self.token_ids)


@dataclass(frozen=True, kw_only=True)
class Question:
    """`place`: its number among all questions that a run asks, over all steps and ranks."""

    place: int
    conversation: Conversation
    prompt_ids: list[int]


class Questions:
    """A task's questions in an order of its own for every pass. Ranks take turns with those of a step."""

    def __init__(
        self, task: Task, tokenizer: Tokenizer, *, per_step: int, max_tokens: int, seed: int, peers: Peers = ALONE
    ) -> None:
        """Questions of more than max_tokens tokens are passed over. Raises InvalidConfig where ranks do not divide a
        step."""
        if per_step % peers.world_size:
            raise InvalidConfig(
                f"examples_per_step is {per_step}, which is no multiple of {peers.world_size} processes; "
                "change either.",
                param="config.examples_per_step",
            )
        self._task, self._tokenizer, self._per_step, self._peers = task, tokenizer, per_step, peers
        self._max_tokens, self._seed = max_tokens, seed

    def of_step(self, step: int) -> list[Question]:
        """This rank's. Raises InvalidConfig where hardly any question is short enough."""
        first = step * self._per_step
        return [
            self._fitting(place)
            for place in range(first + self._peers.rank, first + self._per_step, self._peers.world_size)
        ]

    def _fitting(self, place: int) -> Question:
        """The one of this place, or, where that is too long, others at random."""
        num = len(self._task)
        rng = random.Random(f"{self._seed}/{place}")
        index = _order(num, self._seed, place // num)[place % num]
        for _ in range(_MAX_TRIES):
            conversation = self._task[index]
            prompt_ids = render_prompt(self._tokenizer, conversation.messages[:-1])
            if len(prompt_ids) <= self._max_tokens:
                return Question(place=place, conversation=conversation, prompt_ids=prompt_ids)
            log.debug("question_passed_over", extra={"index": index, "num_tokens": len(prompt_ids)})
            index = rng.randrange(num)
        raise InvalidConfig(
            f"max_prompt_tokens is {self._max_tokens}, and of {_MAX_TRIES} questions none is so short; "
            "give more, or a model with a longer context.",
            param="config.max_prompt_tokens",
        )


class RolloutSampler:
    """Answers the questions of a step, `num_samples` each, all in one call of the engine."""

    def __init__(
        self, engine: Engine, task: Task, questions: Questions, params: SamplingParams, *, max_len: int, num_slots: int
    ) -> None:
        """params.n is the number of answers to a question; params.seed the run's."""
        self._engine, self._task, self._questions, self._params = engine, task, questions, params
        self.max_len, self.num_slots = max_len, num_slots

    def sample(self, step: int) -> list[list[Rollout]]:
        """The answers of this rank's questions, a list each."""
        questions = self._questions.of_step(step)
        params = [seeded(self._params, question.place) for question in questions]
        answers = self._engine.generate([question.prompt_ids for question in questions], params)
        conversations = [
            question.conversation for question, group in zip(questions, answers, strict=True) for _ in group
        ]
        rewards = iter(self._task.rewards(conversations, [answer.text for group in answers for answer in group]))
        return [
            [_rollout(question, answer, next(rewards)) for answer in group]
            for question, group in zip(questions, answers, strict=True)
        ]


def seeded(params: SamplingParams, place: int) -> SamplingParams:
    """With a seed of the place's own; the engine tells its answers apart by their number."""
    digest = hashlib.sha256(f"{params.seed}/{place}".encode()).digest()
    return dataclasses.replace(params, seed=int.from_bytes(digest[:8], "big"))


@functools.lru_cache(maxsize=2)
def _order(num: int, seed: int, epoch: int) -> Sequence[int]:
    order = list(range(num))
    random.Random(f"questions/{seed}/{epoch}").shuffle(order)
    return order


def _rollout(question: Question, answer: Completion, reward: float) -> Rollout:
    return Rollout(
        prompt_ids=question.prompt_ids,
        token_ids=answer.token_ids,
        is_sampled=answer.is_sampled,
        is_complete=answer.finish_reason == "stop",
        reward=reward,
    )
