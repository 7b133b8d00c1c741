"""Scores a chat model on tasks with checkable answers: greedy completions with the calculator, many rows at a time."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from nanochat.engine.generate import Engine
from nanochat.engine.params import SamplingParams
from nanochat.errors import InvalidConfig
from nanochat.tasks.base import Task
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.chat import render_prompt


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An example that was answered wrong, for the log."""

    request: str
    expected: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class ChatScore:
    """Right answers among `num_examples`, their share and its standard error. `failures` holds the first few."""

    num_right: float
    num_examples: int
    failures: tuple[Failure, ...] = ()

    @property
    def accuracy(self) -> float:
        return self.num_right / self.num_examples

    @property
    def stderr(self) -> float:
        return math.sqrt(self.accuracy * (1 - self.accuracy) / self.num_examples)


def score_task(
    engine: Engine,
    tokenizer: Tokenizer,
    task: Task,
    *,
    chunk_size: int = 64,
    on_progress: Callable[[int], None] = lambda num_done: None,
) -> ChatScore:
    """Answer the last user message of every conversation of a task and check it.

    `on_progress` is called with the number of finished examples after each chunk. Raises InvalidConfig for a task whose
    answers cannot be checked, Unavailable where that cannot be done here, ContextTooLong where a conversation does not
    fit the model.
    """
    if not task.is_checkable or not len(task):
        raise InvalidConfig(f"task {type(task).__name__} has no checkable answers; choose another one.", param="tasks")
    task.prepare()
    params = SamplingParams(temperature=0.0, max_tokens=task.max_answer_tokens)
    num_right = 0.0
    failures: list[Failure] = []
    for start in range(0, len(task), chunk_size):
        conversations = list(task[start : start + chunk_size])
        prompts = [render_prompt(tokenizer, conversation.messages[:-1]) for conversation in conversations]
        texts = [completion.text for (completion,) in engine.generate(prompts, params)]
        rewards = task.rewards(conversations, texts)
        for conversation, text, reward in zip(conversations, texts, rewards, strict=True):
            num_right += reward
            if reward < 1 and len(failures) < 5:
                failures.append(
                    Failure(
                        request=str(conversation.messages[-2].content),
                        expected=conversation.answer or "",
                        answer=text,
                    )
                )
        on_progress(start + len(conversations))
    return ChatScore(num_right=num_right, num_examples=len(task), failures=tuple(failures))
