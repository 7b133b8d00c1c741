"""Which documents a rank gets, in which order, and how it finds them again."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nanochat.data.packing import Document
from nanochat.data.shards import Shards
from nanochat.data.sources import ConversationSource, TextSource
from nanochat.errors import DataError
from nanochat.tokenizer.bpe import Tokenizer

WriteShards = Callable[..., Path]
BOS = 256


@pytest.fixture
def folder(write_shards: WriteShards) -> Path:
    """32 documents to train on: five row groups of 4 in one shard, three in the next."""
    shards = [[f"{shard}.{i}" for i in range(size)] for shard, size in enumerate((20, 12, 1))]
    return write_shards(shards, row_group_size=4)


def text(document: Document) -> str:
    assert document.token_ids[0] == BOS
    return bytes(document.token_ids[1:].tolist()).decode()


EVERY = [*(f"0.{i}" for i in range(20)), *(f"1.{i}" for i in range(12))]


def test_one_rank_gets_every_document_in_order_each_epoch(folder: Path, tokenizer: Tokenizer) -> None:
    source = TextSource(Shards(folder), "train", tokenizer, num_epochs=3, num_threads=2)
    assert [text(document) for document in source.documents()] == EVERY * 3
    assert source.cursor()["epoch"] == 3


@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_ranks_share_the_documents_of_an_epoch(folder: Path, tokenizer: Tokenizer, world_size: int) -> None:
    shares = []
    for rank in range(world_size):
        source = TextSource(Shards(folder), "train", tokenizer, rank=rank, world_size=world_size, num_epochs=1)
        shares.append([text(document) for document in source.documents()])
    assert sorted(itertools.chain(*shares)) == sorted(EVERY)
    assert max(map(len, shares)) - min(map(len, shares)) <= 4  # a row group


def test_ranks_change_row_groups_from_epoch_to_epoch_and_lose_none(folder: Path, tokenizer: Tokenizer) -> None:
    """Eight row groups and three ranks: an epoch is dealt where the one before ended."""
    streams = [TextSource(Shards(folder), "train", tokenizer, rank=r, world_size=3, num_epochs=2) for r in range(3)]
    shares = [[text(document) for document in stream.documents()] for stream in streams]
    assert sorted(itertools.chain(*shares)) == sorted(EVERY * 2)
    assert "0.0" in shares[0] and "0.0" in shares[8 % 3]


def test_more_ranks_than_row_groups_are_refused_at_once(folder: Path, tokenizer: Tokenizer) -> None:
    TextSource(Shards(folder), "train", tokenizer, rank=7, world_size=8)
    with pytest.raises(DataError, match="8 row groups in its train split, and each of the 9 ranks"):
        TextSource(Shards(folder), "train", tokenizer, rank=0, world_size=9)
    # One pass over a small validation split leaves ranks without, which they bear.
    assert list(TextSource(Shards(folder), "val", tokenizer, rank=3, world_size=4, num_epochs=1).documents()) == []


@pytest.mark.parametrize("num_before", range(0, 40, 3))
def test_a_source_goes_on_from_its_cursor(folder: Path, tokenizer: Tokenizer, num_before: int) -> None:
    source = TextSource(Shards(folder), "train", tokenizer)
    stream = source.documents()
    for _ in range(num_before):
        next(stream)
    cursor = json.loads(json.dumps(source.cursor()))
    again = TextSource(Shards(folder), "train", tokenizer)
    again.seek(cursor, exact=True)
    expected = [text(document) for document in itertools.islice(stream, 50)]
    assert [text(document) for document in itertools.islice(again.documents(), 50)] == expected


def test_another_rank_goes_on_from_the_start_of_the_row_group(folder: Path, tokenizer: Tokenizer) -> None:
    source = TextSource(Shards(folder), "train", tokenizer)
    next(itertools.islice(source.documents(), 9, None))  # ten documents: two of row group 2
    heads = []
    for rank in range(2):
        again = TextSource(Shards(folder), "train", tokenizer, rank=rank, world_size=2)
        again.seek(source.cursor(), exact=False)
        heads.append(text(next(again.documents())))
    assert heads == ["0.8", "0.12"]


def test_documents_are_found_again_by_their_places(folder: Path, tokenizer: Tokenizer) -> None:
    source = TextSource(Shards(folder), "train", tokenizer)
    wanted = list(itertools.islice(source.documents(), 40))[::-3]
    found = source.fetch([document.place for document in wanted])
    assert [text(document) for document in found] == [text(document) for document in wanted]


def render(index: int) -> tuple[list[int], list[int]]:
    return [BOS, index], [0, 1]


def test_conversations_come_in_turn_over_and_over() -> None:
    source = ConversationSource(5, render, rank=1, world_size=2)
    found = [int(document.token_ids[1]) for document in itertools.islice(source.documents(), 5)]
    assert found == [1, 3, 0, 2, 4]
    assert source.cursor() == {"epoch": 2, "position": 10}


def test_conversations_end_after_their_epochs() -> None:
    source = ConversationSource(3, render, num_epochs=2)
    documents = list(source.documents())
    assert [document.place for document in documents] == [(0,), (1,), (2,)] * 2
    assert documents[2].is_target is not None
    assert documents[2].is_target.tolist() == [False, True]
