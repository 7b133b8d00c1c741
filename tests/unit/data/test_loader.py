"""Batches: what they hold, and that a resumed loader goes on as if nothing had happened."""

import itertools
import json
import random
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
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
from nanochat.data.shards import Shards, Split
from nanochat.errors import DataError
from nanochat.tokenizer.bpe import Tokenizer
from tests.gpus import NEEDS_GPU

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


@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (1, 3)])
def test_a_loader_resumed_at_any_batch_gives_the_next_one(
    write_shards: WriteShards, tokenizer: Tokenizer, rank: int, world_size: int
) -> None:
    """And the same state after it, so by induction all that follow: in the middle and at the ends of row groups, shards
    and epochs."""
    folder = write_shards([texts(150, seed, longest=400) for seed in range(3)], row_group_size=16)

    def open_loader(state: dict[str, Any] | None) -> Loader:
        ranks = {"rank": rank, "world_size": world_size}
        return training_loader(folder, tokenizer, batch_size=3, sequence_len=512, state=state, **ranks)

    with open_loader(None) as loader:
        batches = list(itertools.islice(loader, 110))
        epochs = {batch.state["cursor"]["epoch"] for batch in batches}
        assert len(epochs) >= 3
        assert {batch.state["cursor"]["shard"] for batch in batches} == {0, 1}
    for before, expected in itertools.pairwise(batches):
        with open_loader(json.loads(json.dumps(before.state))) as loader:
            assert loader.state() == before.state
            resumed = next(loader)
        assert torch.equal(resumed.inputs, expected.inputs)
        assert torch.equal(resumed.targets, expected.targets)
        assert resumed.state == expected.state


def test_resuming_reads_each_row_group_once_and_none_without_need(
    write_shards: WriteShards, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_shards([texts(3000, seed) for seed in range(3)], row_group_size=100)
    with training_loader(folder, tokenizer, batch_size=8, sequence_len=64) as loader:
        state = list(itertools.islice(loader, 100))[-1].state
    waiting = Counter(tuple(place[:2]) for place in state["waiting"])
    read: list[tuple[int, int]] = []
    read_row_group = Shards.read_row_group

    def recorded(shards: Shards, split: Split, shard: int, row_group: int) -> list[str]:
        read.append((shard, row_group))
        return read_row_group(shards, split, shard, row_group)

    monkeypatch.setattr(Shards, "read_row_group", recorded)
    with training_loader(folder, tokenizer, batch_size=8, sequence_len=64, state=state) as loader:
        next(loader)
    assert read[: len(waiting)] == sorted(waiting)
    then = [30 * shard + row_group for shard, row_group in read[len(waiting) :]]
    start = 30 * state["cursor"]["shard"] + state["cursor"]["row_group"]
    assert then == list(range(start, start + len(then)))
    assert len(then) <= 16


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


def damaged(path: Path) -> None:
    """The pages' beginning overwritten, behind a good footer."""
    content = path.read_bytes()
    path.write_bytes(content[:40] + b"\xff" * 20 + content[60:])


def without_text(path: Path) -> None:
    pq.write_table(pa.table({"content": texts(20)}), path)


def with_a_null(path: Path) -> None:
    pq.write_table(pa.table({"text": [*texts(20), None]}), path)


def with_latin_1(path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array([b"caf\xe9"] * 20).view(pa.string())}), path)


def cut_short(path: Path) -> None:
    """Ends as parquet does, so that only reading finds out."""
    path.write_bytes(path.read_bytes()[:200] + b"PAR1")


@pytest.mark.parametrize("spoil", [damaged, without_text, with_a_null, with_latin_1, cut_short])
def test_a_bad_shard_stops_every_next_step_with_its_name(
    write_shards: WriteShards, tokenizer: Tokenizer, spoil: Callable[[Path], None]
) -> None:
    folder = write_shards([texts(1200, 0), texts(20, 1), texts(20, 2)])
    spoil(folder / "shard_00001.parquet")
    before = threading.active_count()
    with training_loader(folder, tokenizer, batch_size=1, sequence_len=64) as loader:
        for _ in range(3):
            with pytest.raises(DataError, match=r"shard_00001\.parquet"):
                list(loader)
    assert threading.active_count() == before


def test_a_shard_that_was_cut_off_is_refused_before_the_first_step(
    write_shards: WriteShards, tokenizer: Tokenizer
) -> None:
    folder = write_shards([texts(20, 0), texts(20, 1), texts(20, 2)])
    path = folder / "shard_00001.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"shard_00001\.parquet is truncated"):
        training_loader(folder, tokenizer, batch_size=1, sequence_len=16)


def test_more_ranks_than_row_groups_are_refused_before_the_first_step(folder: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="20 row groups in its train split, and each of the 21 ranks"):
        training_loader(folder, tokenizer, batch_size=1, sequence_len=16, rank=3, world_size=21)


def test_what_a_tokenising_thread_raises_reaches_the_training_step(
    folder: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(tokenizer: Tokenizer, text: str) -> None:
        raise MemoryError("no room for a text")

    monkeypatch.setattr(Tokenizer, "encode_array", broken)
    with (
        training_loader(folder, tokenizer, batch_size=1, sequence_len=16) as loader,
        pytest.raises(MemoryError, match="no room for a text"),
    ):
        next(loader)


def test_closing_leaves_no_thread(folder: Path, tokenizer: Tokenizer) -> None:
    before = threading.active_count()
    loader: Loader = training_loader(folder, tokenizer, batch_size=2, sequence_len=48)
    next(loader)
    assert before < threading.active_count() <= before + 3  # one makes batches, two tokenise
    loader.close()
    loader.close()
    assert threading.active_count() == before


def test_a_state_that_cannot_be_used_leaves_no_thread(folder: Path, tokenizer: Tokenizer) -> None:
    with training_loader(folder, tokenizer, batch_size=2, sequence_len=48) as loader:
        state = next(loader).state
    before = threading.active_count()
    damaged(folder / "shard_00000.parquet")
    with pytest.raises(DataError, match=r"shard_00000\.parquet"):
        training_loader(folder, tokenizer, batch_size=2, sequence_len=48, state=state)
    assert threading.active_count() == before


def test_closing_waits_for_no_batch_in_the_making() -> None:
    """This one would take for ever: a thousand million rows."""
    has_begun = threading.Event()

    def conversation(index: int) -> tuple[list[int], list[int]]:
        has_begun.set()
        return render(index)

    loader = conversation_loader(23, conversation, batch_size=10**9, sequence_len=40)
    assert has_begun.wait(timeout=60)
    loader.close()


def test_batches_for_cuda_are_pinned_in_the_thread_and_copied_without_waiting(
    folder: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With stand-ins for what only CUDA has."""
    devices: list[tuple[str, object]] = []
    pinned: set[int] = set()
    waits: list[bool] = []

    def pin_memory(tensor: torch.Tensor) -> torch.Tensor:
        assert threading.current_thread().name.startswith("loader")
        copy = tensor.clone()
        pinned.add(copy.data_ptr())
        return copy

    def copied(tensor: torch.Tensor, device: torch.device, *, non_blocking: bool) -> torch.Tensor:
        waits.append(not non_blocking)
        return tensor

    monkeypatch.setattr(torch.cuda, "set_device", lambda d: devices.append((threading.current_thread().name[:6], d)))
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda tensor: tensor.data_ptr() in pinned)
    monkeypatch.setattr(torch.Tensor, "to", copied)
    device = torch.device("cuda:1")
    with training_loader(folder, tokenizer, batch_size=2, sequence_len=48, device=device) as loader:
        batch = next(loader)
    assert devices == [("loader", device)]
    inputs, targets = batch.to(device)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    assert waits == [False, False]
    with training_loader(folder, tokenizer, batch_size=2, sequence_len=48, device=torch.device("cpu")) as loader:
        next(loader).to(torch.device("cpu"))
    assert waits == [False, False, True, True]


@NEEDS_GPU
def test_rows_come_to_cuda_as_they_are_though_many_are_on_their_way(folder: Path, tokenizer: Tokenizer) -> None:
    """None is waited for, and the pinned memory of those that are let go is used again."""
    device = torch.device("cuda", torch.cuda.device_count() - 1)
    with training_loader(folder, tokenizer, batch_size=2, sequence_len=48) as plain:
        expected = [next(plain) for _ in range(40)]
    with training_loader(folder, tokenizer, batch_size=2, sequence_len=48, device=device) as loader:
        batch = next(loader)
        assert batch.inputs.is_pinned() and batch.targets.is_pinned()
        found = [batch.to(device), *(next(loader).to(device) for _ in range(39))]
    for (inputs, targets), rows_of_cpu in zip(found, expected, strict=True):
        assert inputs.device == targets.device == device
        assert torch.equal(inputs.cpu(), rows_of_cpu.inputs) and torch.equal(targets.cpu(), rows_of_cpu.targets)


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
