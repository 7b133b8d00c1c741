"""The golden tokenizer file and 60 conversations rendered by an independent implementation."""

import json
from pathlib import Path

from pydantic import TypeAdapter

from nanochat.protocol.generate import Message
from nanochat.tokenizer import chat
from nanochat.tokenizer.bpe import Tokenizer


def test_the_golden_file_is_read_and_written_as_it_is(test_data: Path) -> None:
    path = test_data / "golden" / "tokenizer.json"
    tokenizer = Tokenizer.load(path)
    assert tokenizer.vocab_size == 512
    assert json.loads(tokenizer.to_json()) == json.loads(path.read_text())


def test_golden_conversations_render_to_the_same_ids_and_masks(test_data: Path) -> None:
    tokenizer = Tokenizer.load(test_data / "golden" / "tokenizer.json")
    lines = (test_data / "golden" / "conversations.jsonl").read_text().splitlines()
    assert len(lines) == 60
    for example in map(json.loads, lines):
        messages = TypeAdapter(list[Message]).validate_python(example["messages"])
        assert chat.render(tokenizer, messages) == (example["ids"], example["mask"])
        assert chat.render_prompt(tokenizer, messages[:-1]) == example["ids_for_completion"]
