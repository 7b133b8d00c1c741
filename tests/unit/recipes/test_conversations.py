"""Mixtures and the masks of what is context only."""

import json
from pathlib import Path

import pytest

from nanochat.errors import InvalidConfig
from nanochat.protocol.generate import Message
from nanochat.protocol.jobs import MixtureItem
from nanochat.recipes.conversations import build_mixture, render_conversation, spoken_texts
from nanochat.tasks.base import Conversation
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.chat import render


def write(path: Path, num_conversations: int) -> Path:
    lines = [
        json.dumps([{"role": "user", "content": f"question {i}"}, {"role": "assistant", "content": "answer"}])
        for i in range(num_conversations)
    ]
    path.write_text("\n".join(lines))
    return path


def test_context_only_messages_are_read_and_not_learned(tokenizer: Tokenizer) -> None:
    texts = ["a", "B=1\nb", "c", "d", "e", "f"]
    roles = ["user", "assistant"] * 3
    messages = [Message.model_validate({"role": r, "content": t}) for r, t in zip(roles, texts, strict=True)]
    ids, mask = render_conversation(tokenizer, Conversation(messages=messages, context_only=frozenset({1})))
    plain_ids, plain_mask = render(tokenizer, messages)
    assert ids == plain_ids
    learned = tokenizer.decode([token for token, is_learned in zip(ids, mask, strict=True) if is_learned])
    assert learned == "df"
    assert sum(plain_mask) - sum(mask) == len("B=1\nb") + 1  # its end mark too
    assert render_conversation(tokenizer, Conversation(messages=messages)) == (plain_ids, plain_mask)


def test_every_twentieth_conversation_of_a_file_is_kept_for_validation(tmp_path: Path) -> None:
    file = write(tmp_path / "chat.jsonl", 45)
    mixture = build_mixture([MixtureItem(file=str(file))], tmp_path)
    kept = {str(conversation.messages[0].content) for conversation in mixture.validation}
    used = {str(conversation.messages[0].content) for conversation in mixture.train}
    assert kept == {"question 19", "question 39"}
    assert len(used) == 43 and not used & kept


def test_stop_and_epochs_count_a_source(tmp_path: Path) -> None:
    file = write(tmp_path / "chat.jsonl", 10)
    items = [MixtureItem(file=str(file), stop=5, epochs=3), MixtureItem(task="spelling", stop=7)]
    mixture = build_mixture(items, tmp_path)
    assert len(mixture.train) == 5 * 3 + 7
    assert len(mixture.validation) == 500


def test_spoken_texts_are_those_that_are_encoded_in_one_go() -> None:
    parts = [{"type": "text", "text": "2+2="}, {"type": "python", "text": "2+2"}, {"type": "text", "text": "4"}]
    messages = [{"role": "user", "content": "2 and 2?"}, {"role": "assistant", "content": parts}]
    conversation = Conversation(messages=[Message.model_validate(message) for message in messages])
    assert list(spoken_texts(conversation)) == ["2 and 2?", "2+2=", "2+2", "4"]


def test_an_unknown_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="choose one of"):
        build_mixture([MixtureItem(task="dancing")], tmp_path)


def test_a_benchmark_keeps_some_of_its_training_split_and_none_of_the_test_split(tmp_path: Path) -> None:
    folder = tmp_path / "gsm8k"
    folder.mkdir()
    for split, count in (("train", 60), ("test", 5)):
        rows = [{"question": f"{split} {i}", "answer": f"#### {i}"} for i in range(count)]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    mixture = build_mixture([MixtureItem(task="gsm8k", stop=40, epochs=2)], tmp_path)
    learned = [str(conversation.messages[0].content) for conversation in mixture.train]
    kept = [str(conversation.messages[0].content) for conversation in mixture.validation]
    assert len(learned) == 2 * 38 and sorted(kept) == ["train 19", "train 39"]
    assert not set(learned) & set(kept) and all(text.startswith("train") for text in learned)
    other = build_mixture([MixtureItem(task="gsm8k", split="test")], tmp_path)
    assert {str(conversation.messages[0].content)[:4] for conversation in other.train} == {"test"}
