"""Batches: what they hold, and that a resumed loader goes on as if nothing had happened."""

import json
import random
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nanochat.data.loader import (
    Batch,
    Loader,
    conversation_loader,
    count_conversation_rows,
    training_loader,
    validation_loader,
)
from nanochat.errors import DataError
from nanochat.tokenizer.bpe import Tokenizer

WriteShards = Callable[..., Path]
BOS = 256


def texts(num_documents: int, seed: int = 0, longest: int = 40) -> list[str]:
    """Documents that begin with a number of their own, so that one is known by its first letters."""
    rng = random.Random(seed)
    return [f"{seed}.{i}:" + "x" * rng.randint(1, longest) for i in range(num_documents)]


def rows(batch: Batch) -> list[list[int]]:
    """The rows of T + 1 tokens that a batch without ignored targets was made of."""
    return [
        [*inputs, targets[-1]] for inputs, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True)
    ]


def started(row: list[int]) -> list[str]:
    """The numbers of the documents that begin in a row."""
    documents = "".join(chr(token) if token != BOS else "\n" for token in row).split("\n")[1:]
    return [document.partition(":")[0] for document in documents if ":" in document]


@pytest.fixture
def folder(write_shards: WriteShards) -> Path:
    return write_shards([texts(150, seed) for seed in range(3)], row_group_size=16)


def test_targets_are_the_inputs_one_step_on(folder: Path, tokenizer: Tokenizer) -> None:
    with training_loader(folder, tokenizer, batch_size=3, sequence_len=64) as loader:
        batch = next(loader)
    assert batch.inputs.shape == batch.targets.shape == (3, 64)
    assert batch.inputs.dtype == batch.targets.dtype == torch.int64
    assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])
    assert (batch.inputs[:, 0] == BOS).all()


@pytest.mark.parametrize("num_before", [1, 7, 40])
def test_a_resumed_loader_gives_the_rows_of_an_uninterrupted_one(
    folder: Path, tokenizer: Tokenizer, num_before: int
) -> None:
    with training_loader(folder, tokenizer, batch_size=2, sequence_len=48) as loader:
        for _ in range(num_before):
            next(loader)
        state = json.loads(json.dumps(loader.state()))
        expected = [next(loader) for _ in range(60)]
    with training_loader(folder, tokenizer, batch_size=2, sequence_len=48, state=state) as loader:
        for batch in expected:
            resumed = next(loader)
            assert torch.equal(resumed.inputs, batch.inputs)
            assert torch.equal(resumed.targets, batch.targets)
            assert resumed.state == batch.state
        assert loader.state() == expected[-1].state


def test_a_state_from_before_the_first_batch_starts_at_the_beginning(folder: Path, tokenizer: Tokenizer) -> None:
    with training_loader(folder, tokenizer, batch_size=2, sequence_len=48) as loader:
        state = loader.state()
        first = next(loader)
    with training_loader(folder, tokenizer, batch_size=2, sequence_len=48, state=state) as loader:
        assert torch.equal(next(loader).inputs, first.inputs)


def test_a_state_of_other_data_is_refused(folder: Path, write_shards: WriteShards, tokenizer: Tokenizer) -> None:
    with training_loader(folder, tokenizer, batch_size=2, sequence_len=48) as loader:
        state = loader.state()
    write_shards([texts(10, 7), texts(10, 8), texts(10, 9), texts(10, 9)])
    with pytest.raises(DataError, match="not what the checkpoint was trained on"):
        training_loader(folder, tokenizer, batch_size=2, sequence_len=48, state=state)


def test_another_number_of_ranks_goes_on_near_the_same_place(
    folder: Path, tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    with training_loader(folder, tokenizer, batch_size=2, sequence_len=48) as loader:
        state = next(loader).state
    with training_loader(folder, tokenizer, batch_size=2, sequence_len=48, rank=1, world_size=2, state=state) as loader:
        assert loader.state()["cursor"]["epoch"] == state["cursor"]["epoch"]
        next(loader)
    assert "loader_resumed_roughly" in caplog.text


def test_validation_is_one_pass_in_full_batches(folder: Path, tokenizer: Tokenizer) -> None:
    with validation_loader(folder, tokenizer, batch_size=4, sequence_len=64) as loader:
        batches = list(loader)
        assert list(loader) == []
        assert loader.counts.num_tokens + loader.counts.num_discarded == sum(len(text) + 1 for text in texts(150, 2))
    assert {batch.inputs.shape for batch in batches} == {(4, 64)}
    kept = [row for batch in batches for row in rows(batch) if row[-1] != -1]
    names = Counter(name for row in kept for name in started(row))
    assert set(names.values()) == {1}
    last = batches[-1]
    assert ((last.targets == -1) | (last.targets == last.inputs.roll(-1, 1)) | (torch.arange(64) == 63)).all()


def test_a_validation_split_smaller_than_a_row_still_counts(write_shards: WriteShards, tokenizer: Tokenizer) -> None:
    folder = write_shards([["training"], ["abc"]])
    with validation_loader(folder, tokenizer, batch_size=2, sequence_len=16) as loader:
        (batch,) = list(loader)
    assert batch.targets[0].tolist() == [*b"abc", *[-1] * 13]
    assert (batch.targets[1] == -1).all()


def test_a_split_without_documents_is_an_error_and_no_endless_search(
    write_shards: WriteShards, tokenizer: Tokenizer
) -> None:
    folder = write_shards([["", ""], ["val"]])
    with (
        training_loader(folder, tokenizer, batch_size=1, sequence_len=16) as loader,
        pytest.raises(DataError, match="only empty texts in its train split"),
    ):
        next(loader)


def test_a_corrupt_shard_is_reported_by_the_batch_that_needs_it(
    write_shards: WriteShards, tokenizer: Tokenizer
) -> None:
    folder = write_shards([texts(20, 0), texts(20, 1), texts(20, 2)])
    path = folder / "shard_00001.parquet"
    path.write_bytes(b"PAR1" + b"\xff" * 200 + b"PAR1")
    with (
        training_loader(folder, tokenizer, batch_size=1, sequence_len=16) as loader,
        pytest.raises(DataError, match=r"shard_00001\.parquet"),
    ):
        next(loader)


def test_closing_leaves_no_thread(folder: Path, tokenizer: Tokenizer) -> None:
    before = threading.active_count()
    loader: Loader = training_loader(folder, tokenizer, batch_size=2, sequence_len=48)
    next(loader)
    assert threading.active_count() == before + 1
    loader.close()
    loader.close()
    assert threading.active_count() == before


def render(index: int) -> tuple[list[int], list[int]]:
    """Conversation i: BOS, i + 1 tokens from the user, i + 2 to learn."""
    return [BOS, *[10] * (index + 1), *[20] * (index + 2)], [0] * (index + 2) + [1] * (index + 2)


def test_only_what_the_assistant_says_is_a_target() -> None:
    with conversation_loader(6, render, batch_size=2, sequence_len=24, num_epochs=1) as loader:
        batches = list(loader)
    targets = torch.cat([batch.targets for batch in batches])
    assert set(targets.unique().tolist()) == {-1, 20}
    assert (targets == 20).sum() == sum(index + 2 for index in range(6))


def test_a_target_follows_its_input() -> None:
    with conversation_loader(1, render, batch_size=1, sequence_len=6, num_epochs=1) as loader:
        (batch,) = list(loader)
    assert batch.inputs.tolist() == [[BOS, 10, 20, 20, BOS, BOS]]
    assert batch.targets.tolist() == [[-1, 20, 20, -1, -1, -1]]


def test_a_resumed_conversation_loader_gives_the_same_rows() -> None:
    def open_loader(state: dict[str, object] | None) -> Loader:
        return conversation_loader(23, render, batch_size=3, sequence_len=40, state=state)

    with open_loader(None) as loader:
        for _ in range(9):
            next(loader)
        state = json.loads(json.dumps(loader.state()))
        expected = [next(loader) for _ in range(30)]
    with open_loader(state) as loader:
        assert all(torch.equal(next(loader).targets, batch.targets) for batch in expected)


def test_over_long_conversations_are_cut_and_counted() -> None:
    with conversation_loader(6, render, batch_size=1, sequence_len=9, num_epochs=1) as loader:
        for batch in loader:
            assert batch.inputs.shape == (1, 9)
        assert loader.counts.num_truncated == 2  # those of 12 and 14 tokens; 10 fits
        assert loader.counts.num_discarded == 2 + 4


def test_ranks_take_conversations_in_turn() -> None:
    total = 0
    for rank in range(2):
        with conversation_loader(5, render, batch_size=1, sequence_len=24, rank=rank, world_size=2, num_epochs=1) as it:
            total += sum(int((batch.targets == 20).sum()) for batch in it)
    assert total == sum(index + 2 for index in range(5))


def test_an_epochs_rows_are_counted_without_training() -> None:
    with conversation_loader(20, render, batch_size=1, sequence_len=50, num_epochs=1) as loader:
        assert count_conversation_rows(20, render, 50) == sum(1 for _ in loader)


def test_a_mixture_without_conversations_is_refused() -> None:
    with pytest.raises(DataError, match="no conversation"):
        conversation_loader(0, render, batch_size=1, sequence_len=8)


def test_what_rendering_raises_reaches_the_training_step() -> None:
    def broken(index: int) -> tuple[list[int], list[int]]:
        raise DataError(f"conversation {index} has no messages.")

    with (
        conversation_loader(3, broken, batch_size=1, sequence_len=8) as loader,
        pytest.raises(DataError, match="conversation 0"),
    ):
        next(loader)
