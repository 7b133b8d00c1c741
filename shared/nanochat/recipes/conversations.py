"""From a job's mixture to conversations as token ids: which are trained on, and which are kept to validate with."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat.protocol.jobs import MixtureItem
from nanochat.tasks.base import Conversation, Task
from nanochat.tasks.benchmark import Benchmark
from nanochat.tasks.custom_json import CustomJSON
from nanochat.tasks.loading import load
from nanochat.tasks.mixture import TaskMixture, TaskSequence
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.chat import render
from nanochat.tokenizer.special import ASSISTANT_END, ASSISTANT_START

# Every twentieth conversation of a file is kept for validation, where it has as many.
_VALIDATION_EVERY = 20
_VALIDATION_EXAMPLES = 500

Render = Callable[[int], tuple[list[int], list[int]]]


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Both are shuffled, so that a part of either is a sample of all its sources. `parts`: what each source trains on,
    once for all of its epochs."""

    train: Task
    validation: Task
    parts: Sequence[tuple[MixtureItem, Task]]

    def describe(self) -> list[dict[str, Any]]:
        """The sources in their order, for a checkpoint to know them again by."""
        return [describe_source(item.task or str(item.file), task, item.epochs) for item, task in self.parts]


def build_mixture(items: Sequence[MixtureItem], datasets: Path) -> Mixture:
    """Benchmarks are read from their folders in `datasets`.

    Raises InvalidConfig for an unknown task, DataError naming file and line for a bad file.
    """
    parts: list[tuple[MixtureItem, Task]] = []
    train: list[Task] = []
    validation: list[Task] = []
    for item in items:
        if item.task is not None:
            used, kept = _of_task(item, datasets)
        else:
            assert item.file is not None
            used, kept = _split(CustomJSON(Path(item.file))[: item.stop])
        parts.append((item, used))
        train += [used] * item.epochs
        validation.append(kept)
    return Mixture(train=TaskMixture(train), validation=TaskMixture(validation), parts=parts)


def describe_source(name: str, task: Task, epochs: int = 1) -> dict[str, Any]:
    """JSON: what people know a source by, how many conversations it gives, and what changes with them."""
    return {"source": name, "num_conversations": len(task) * epochs, "fingerprint": task.fingerprint()}


def renderer(tokenizer: Tokenizer, task: Task) -> Render:
    """`render(i)` for the loader: ids and mask of conversation i of a task."""
    return lambda index: render_conversation(tokenizer, task[index])


def render_conversation(tokenizer: Tokenizer, conversation: Conversation) -> tuple[list[int], list[int]]:
    """As tokenizer.chat.render, with mask 0 on the assistant messages that are context only."""
    ids, mask = render(tokenizer, conversation.messages)
    if not conversation.context_only:
        return ids, mask
    start, end = tokenizer.special_id(ASSISTANT_START), tokenizer.special_id(ASSISTANT_END)
    messages = [index for index, message in enumerate(conversation.messages) if message.role == "assistant"]
    # No text encodes to these marks, so the n-th of each is the n-th assistant message's.
    spans = zip(_positions(ids, start), _positions(ids, end), messages, strict=True)
    for first, last, message in spans:
        if message in conversation.context_only:
            mask[first : last + 1] = [0] * (last + 1 - first)
    return ids, mask


def spoken_texts(conversation: Conversation) -> Iterator[str]:
    """Every text of a conversation that is encoded in one go: a message's content, or each of its parts."""
    for message in conversation.messages:
        if isinstance(message.content, str):
            yield message.content
        else:
            yield from (part.text for part in message.content)


def _positions(ids: list[int], token_id: int) -> list[int]:
    return [position for position, found in enumerate(ids) if found == token_id]


def _of_task(item: MixtureItem, datasets: Path) -> tuple[Task, Task]:
    """What is trained on, and what is kept to validate with.

    A generated task holds examples out. A benchmark's held-out split is for its score alone: of what is trained on,
    some is kept, as of a file.
    """
    assert item.task is not None
    used = load(item.task, "train", datasets, published=item.split)
    if isinstance(used, Benchmark):
        return _split(used[: item.stop])
    return used[: item.stop], load(item.task, "held_out", datasets)[:_VALIDATION_EXAMPLES]


def _split(task: Task) -> tuple[Task, Task]:
    """A file's conversations: those to train on, and every twentieth to validate with."""
    kept = task[_VALIDATION_EVERY - 1 :: _VALIDATION_EVERY]
    rest = [task[start::_VALIDATION_EVERY] for start in range(_VALIDATION_EVERY - 1)]
    return TaskSequence(rest), kept
