"""What a run that goes on must have in common with the checkpoint that it goes on from."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from nanochat.checkpoint.manifest import CheckpointInfo
from nanochat.checkpoint.store import Checkpoint
from nanochat.config import GPTConfig
from nanochat.errors import Conflict, DataError
from nanochat.protocol.jobs import MixtureItem
from nanochat.recipes.conversations import build_mixture
from nanochat.recipes.same_run import check_same_conversations, check_same_tokenizer
from nanochat.tokenizer.bpe import Tokenizer


@pytest.fixture
def saved(tmp_path: Path, tokenizer: Tokenizer) -> Checkpoint:
    config = GPTConfig(n_layer=2, n_head=2, n_kv_head=2, n_embd=32, vocab_size=tokenizer.vocab_size)
    info = CheckpointInfo(
        id="one/sft/step_000003",
        run="one",
        stage="sft",
        step=3,
        created=0.0,
        size_bytes=1,
        config=config,
        metrics={},
        folder=tmp_path / "step_000003",
    )
    return Checkpoint(
        info=info, config=config, tokenizer=tokenizer, model_tensors={}, optimizer_tensors=None, state={"step": 3}
    )


def write(file: Path, num_conversations: int, answer: str = "answer") -> Path:
    lines = [
        json.dumps([{"role": "user", "content": f"question {i}"}, {"role": "assistant", "content": answer}])
        for i in range(num_conversations)
    ]
    file.write_text("\n".join(lines))
    return file


def describe(*items: MixtureItem) -> list[dict[str, Any]]:
    """As it comes back from a checkpoint's state."""
    described: list[dict[str, Any]] = json.loads(json.dumps(build_mixture(items, Path("/nowhere")).describe()))
    return described


def trained_on(saved: Checkpoint, sources: list[dict[str, Any]]) -> Checkpoint:
    return dataclasses.replace(saved, state={"conversations": sources})


def test_another_tokenizer_with_as_many_tokens_is_refused(saved: Checkpoint, tokenizer: Tokenizer) -> None:
    tokens = [bytes([byte]) for byte in range(256)]
    check_same_tokenizer(saved, Tokenizer(tokens))
    for other in (Tokenizer(tokens[::-1]), Tokenizer(tokens, pattern=r"\s+|\S+")):
        assert other.vocab_size == tokenizer.vocab_size
        with pytest.raises(
            Conflict, match=r"one/sft/step_000003 was trained with the tokenizer .* another one"
        ) as told:
            check_same_tokenizer(saved, other)
        assert f"{saved.info.folder / 'tokenizer.json'} is a copy" in told.value.message


def test_the_same_conversations_are_known_again_wherever_they_lie(saved: Checkpoint, tmp_path: Path) -> None:
    spelling = MixtureItem(task="spelling", stop=30, epochs=2)
    file = write(tmp_path / "chat.jsonl", 40)
    checkpoint = trained_on(saved, describe(MixtureItem(file=str(file)), spelling))
    moved = file.rename(tmp_path / "elsewhere.jsonl")
    check_same_conversations(checkpoint, describe(MixtureItem(file=str(moved)), spelling))


def test_changed_conversations_are_told_with_what_was_and_what_is(saved: Checkpoint, tmp_path: Path) -> None:
    file = write(tmp_path / "chat.jsonl", 40)
    chat = MixtureItem(file=str(file))
    checkpoint = trained_on(saved, describe(chat))
    with pytest.raises(DataError, match="it had none where the job has 30 of spelling"):
        check_same_conversations(checkpoint, describe(chat, MixtureItem(task="spelling", stop=30)))
    with pytest.raises(DataError, match=f"it had 38 of {file} .* where the job has 76 of {file} "):
        check_same_conversations(checkpoint, describe(MixtureItem(file=str(file), epochs=2)))
    write(file, 40, answer="Answer")  # as long as it was
    with pytest.raises(DataError, match=f"it had 38 of {file} .* where the job has 38 of {file} .*another run"):
        check_same_conversations(checkpoint, describe(chat))


def test_a_checkpoint_that_does_not_say_what_it_was_trained_on_is_gone_on_with(saved: Checkpoint) -> None:
    check_same_conversations(saved, describe(MixtureItem(task="spelling", stop=30)))
