"""Scores a chat model on tasks with checkable answers, many at a time: by what it writes or by the letter it favours.

generative   greedy completions with the calculator; slots are refilled as answers end
categorical  the likeliest of the letters that an example names, right after assistant_start; nothing is generated

Which of the two a task is, its examples say: they have `choices`, or none.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from nanochat.engine.generate import Engine
from nanochat.engine.params import SamplingParams
from nanochat.errors import InvalidConfig
from nanochat.evals.likelihood import Passage, Scorer
from nanochat.protocol.generate import Message
from nanochat.tasks.base import Conversation, Task
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.chat import render_prompt

# Answers checked at once: programs, say, run side by side.
_CHECKED_AT_ONCE = 64
_MAX_FAILURES = 5

OnProgress = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An example that was answered wrong, for the log."""

    request: str
    expected: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class ChatScore:
    """Right answers among `num_examples`, their share and its standard error. `failures` holds the first few.

    `baseline` is the accuracy of guessing: `centered` is 0 at it and 1 where all is right.
    """

    num_right: float
    num_examples: int
    baseline: float = 0.0
    seconds: float = 0.0
    failures: tuple[Failure, ...] = ()

    @property
    def accuracy(self) -> float:
        return self.num_right / self.num_examples

    @property
    def stderr(self) -> float:
        return math.sqrt(self.accuracy * (1 - self.accuracy) / self.num_examples)

    @property
    def centered(self) -> float:
        return (self.accuracy - self.baseline) / (1 - self.baseline)

    @property
    def centered_stderr(self) -> float:
        return self.stderr / (1 - self.baseline)


def is_categorical(task: Task) -> bool:
    """Raises InvalidConfig for a task whose answers cannot be checked."""
    if not task.is_checkable or not len(task):
        raise InvalidConfig(f"task {type(task).__name__} has no checkable answers; choose another one.", param="tasks")
    return bool(task[0].choices)


def score_generated(
    engine: Engine, tokenizer: Tokenizer, task: Task, on_progress: OnProgress = lambda num_done: None
) -> ChatScore:
    """Answer the last user message of every conversation of a task and check it.

    `on_progress` is called with the number of finished examples, now and then. Raises InvalidConfig for a task whose
    answers cannot be checked, Unavailable where that cannot be done here, ContextTooLong where a conversation does not
    fit the engine.
    """
    assert not is_categorical(task), "letters are not written"
    start = time.monotonic()
    task.prepare()
    params = SamplingParams(temperature=0.0, max_tokens=task.max_answer_tokens)
    checked = _Checked(task)
    texts: dict[int, str] = {}
    for index, completion in engine.completed([_prompt(tokenizer, each) for each in task], params):
        texts[index] = completion.text
        if len(texts) == _CHECKED_AT_ONCE:
            on_progress(checked.add(texts))
            texts = {}
    if texts:
        on_progress(checked.add(texts))
    return checked.score(start)


def score_categorical(
    scorer: Scorer, tokenizer: Tokenizer, task: Task, on_progress: OnProgress = lambda num_done: None
) -> ChatScore:
    """The likeliest of the letters of every conversation of a task, checked.

    Of two equally likely ones the first. Conversations longer than the scorer takes lose their left end. Raises
    InvalidConfig for a task whose answers cannot be checked, or with a letter that is not one token.
    """
    assert is_categorical(task), "there are letters to choose among"
    start = time.monotonic()
    task.prepare()
    groups = [_letters(tokenizer, each, scorer.max_len) for each in task]
    checked = _Checked(task)
    texts = {}
    for index, letters in enumerate(scorer.score(groups, on_progress)):
        nats = [letter.nats for letter in letters]
        texts[index] = task[index].choices[nats.index(min(nats))]
    checked.add(texts)
    return checked.score(start)


class _Checked:
    """Adds up what answers of a task earn."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._num_right = 0.0
        self._num_done = 0
        self._failures: list[Failure] = []

    def add(self, texts: Mapping[int, str]) -> int:
        """Answers by the index of their example; gives the number of all so far."""
        conversations = [self._task[index] for index in texts]
        rewards = self._task.rewards(conversations, list(texts.values()))
        for conversation, text, reward in zip(conversations, texts.values(), rewards, strict=True):
            self._num_right += reward
            if reward < 1 and len(self._failures) < _MAX_FAILURES:
                request, expected = str(_messages(conversation)[-1].content), conversation.answer or ""
                self._failures.append(Failure(request=request, expected=expected, answer=text))
        self._num_done += len(texts)
        return self._num_done

    def score(self, start: float) -> ChatScore:
        return ChatScore(
            num_right=self._num_right,
            num_examples=self._num_done,
            baseline=self._task.baseline,
            seconds=time.monotonic() - start,
            failures=tuple(self._failures),
        )


def longest_prompt(tokenizer: Tokenizer, task: Task) -> int:
    """Tokens of a task's longest request, conversations before it included."""
    return max(len(_prompt(tokenizer, conversation)) for conversation in task)


def _messages(conversation: Conversation) -> list[Message]:
    """All but the answer."""
    return conversation.messages[:-1]


def _prompt(tokenizer: Tokenizer, conversation: Conversation) -> list[int]:
    return render_prompt(tokenizer, _messages(conversation))


def _letters(tokenizer: Tokenizer, conversation: Conversation, max_len: int) -> list[Passage]:
    """The request with each letter behind it."""
    prompt = _prompt(tokenizer, conversation)[1 - max_len :]
    passages = []
    for letter in conversation.choices:
        ids = tokenizer.encode(letter)
        if len(ids) != 1:
            raise InvalidConfig(
                f"the choice {letter!r} is {len(ids)} tokens of the tokenizer of {tokenizer.vocab_size}, and choices "
                "are compared by a token each; give other ones, or a checkpoint whose tokenizer has it.",
                param="tasks",
            )
        passages.append(Passage([*prompt, *ids], len(prompt)))
    return passages
