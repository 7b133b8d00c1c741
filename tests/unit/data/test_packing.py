"""Best-fit packing: worked examples, a plain reference, and what no row may lack."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.data.packing import BUFFER_SIZE, Buffer, Document, PackingCounts, Row, fill_rows, pad_rows
from tests.unit.data.plain_packing import PlainRow, plain_fill, plain_pad

BOS = 99_999
LENGTHS = st.lists(st.integers(1, 30), max_size=60)


def documents(lengths: list[int]) -> Iterator[Document]:
    """Document i is BOS and then i, as often as it takes."""
    for index, length in enumerate(lengths):
        ids = np.array([BOS, *[index] * (length - 1)], dtype=np.int32)
        yield Document((index,), ids, np.arange(length) % 2 == 1)


def fill(lengths: list[int], row_len: int, size: int) -> tuple[list[Row], PackingCounts]:
    counts = PackingCounts()
    return list(fill_rows(documents(lengths), Buffer(row_len), row_len, counts, size)), counts


def pad(lengths: list[int], row_len: int, size: int) -> tuple[list[Row], PackingCounts]:
    counts = PackingCounts()
    return list(pad_rows(documents(lengths), Buffer(row_len, clips=True), row_len, counts, size)), counts


def spans(row: Row) -> list[tuple[int, int]]:
    """(document, tokens) in the order of the row; a document of BOS alone is -1, and so is each token of padding."""
    starts = [*np.flatnonzero(row.token_ids == BOS), len(row.token_ids)]
    return [
        (int(row.token_ids[start + 1]) if end - start > 1 else -1, int(end - start))
        for start, end in itertools.pairwise(starts)
    ]


def kept(row: Row, expected: PlainRow) -> None:
    """The row begins with exactly these documents."""
    tokens = [token for index, length in expected for token in [BOS, *[index] * (length - 1)]]
    assert row.token_ids[: len(tokens)].tolist() == tokens
    assert (row.token_ids[len(tokens) :] == BOS).all()
    assert not row.is_target[len(tokens) :].any()


def test_the_largest_document_that_fits_goes_first() -> None:
    rows, counts = fill([3, 6, 4, 7], row_len=10, size=4)
    assert [spans(row) for row in rows] == [[(3, 7), (0, 3)], [(1, 6), (2, 4)]]
    assert counts.num_discarded == 0


def test_when_none_fits_the_shortest_is_cut_and_its_rest_counted() -> None:
    rows, counts = fill([8, 9, 5, 8], row_len=10, size=4)
    assert spans(rows[0]) == [(1, 9), (-1, 1)]
    assert (counts.num_truncated, counts.num_discarded) == (2, 4 + 6)


def test_of_equally_long_documents_the_oldest_goes_first() -> None:
    rows, _ = fill([5, 5, 5, 5], row_len=10, size=4)
    assert [spans(row) for row in rows] == [[(0, 5), (1, 5)], [(2, 5), (3, 5)]]


def test_padding_leaves_the_rest_of_a_row_that_nothing_fits() -> None:
    rows, counts = pad([8, 9, 5], row_len=10, size=3)
    kept(rows[0], [(1, 9)])
    kept(rows[1], [(0, 8)])
    kept(rows[2], [(2, 5)])
    assert (counts.num_padding, counts.num_discarded) == (1 + 2 + 5, 0)


def test_a_conversation_longer_than_a_row_keeps_its_beginning_and_is_counted() -> None:
    rows, counts = pad([25, 3], row_len=10, size=2)
    kept(rows[0], [(0, 10)])
    kept(rows[1], [(1, 3)])
    assert (counts.num_truncated, counts.num_discarded) == (1, 15)


def test_only_the_tokens_marked_are_targets() -> None:
    rows, _ = pad([4, 3], row_len=10, size=2)
    assert rows[0].is_target.tolist() == [False, True, False, True, False, True, False, False, False, False]


def test_no_document_gives_no_row() -> None:
    assert fill([], row_len=4, size=2)[0] == []
    assert pad([], row_len=4, size=2)[0] == []


@given(lengths=LENGTHS, row_len=st.integers(2, 20), size=st.integers(1, 8))
def test_filled_rows_are_those_of_the_definition(lengths: list[int], row_len: int, size: int) -> None:
    rows, _ = fill(lengths, row_len, size)
    expected = list(plain_fill(lengths, row_len, size))
    assert len(rows) == len(expected)
    for row, documents_kept in zip(rows, expected, strict=True):
        kept(row, documents_kept)


@given(lengths=LENGTHS, row_len=st.integers(2, 20), size=st.integers(1, 8))
def test_padded_rows_are_those_of_the_definition(lengths: list[int], row_len: int, size: int) -> None:
    rows, _ = pad(lengths, row_len, size)
    expected = list(plain_pad(lengths, row_len, size))
    assert len(rows) == len(expected)
    for row, documents_kept in zip(rows, expected, strict=True):
        kept(row, documents_kept)


@pytest.mark.parametrize("median", [60, 700])
def test_at_real_sizes_nothing_more_is_wasted_than_by_the_definition(median: int) -> None:
    """A buffer of 1000 and rows of 513; documents of text are about log-normal, shorter or longer than a row."""
    rng = np.random.default_rng(0)
    lengths = [int(n) for n in np.exp(rng.normal(np.log(median), 1.0, 2500)).clip(1, 8000)]
    filled, counts = fill(lengths, 513, BUFFER_SIZE)
    expected = list(plain_fill(lengths, 513, BUFFER_SIZE))
    assert len(filled) == len(expected)
    for row, documents_kept in zip(filled, expected, strict=True):
        kept(row, documents_kept)
    assert counts.num_discarded == sum(lengths) - sum(num for row in expected for _, num in row)
    padded, counts = pad(lengths, 513, BUFFER_SIZE)
    expected = list(plain_pad(lengths, 513, BUFFER_SIZE))
    assert counts.num_padding == 513 * len(expected) - sum(num for row in expected for _, num in row)
    for row, documents_kept in zip(padded, expected, strict=True):
        kept(row, documents_kept)


def test_a_long_document_costs_no_more_memory_than_a_row() -> None:
    buffer = Buffer(16)
    (document,) = documents([100_000])
    buffer.add(document)
    held = buffer.take_shortest()
    assert len(held) == 100_000
    assert held.token_ids.tolist() == document.token_ids[:16].tolist()
    assert held.token_ids.base is None, "a view would keep the whole document"


@given(lengths=LENGTHS, row_len=st.integers(2, 20), size=st.integers(1, 8))
def test_every_row_begins_with_bos_and_every_token_is_counted(lengths: list[int], row_len: int, size: int) -> None:
    for pack in (fill, pad):
        rows, counts = pack(lengths, row_len, size)
        assert all(row.token_ids[0] == BOS and len(row.token_ids) == row_len for row in rows)
        assert counts.num_tokens + counts.num_discarded == sum(lengths)
        assert counts.num_tokens + counts.num_padding == len(rows) * row_len


@given(lengths=LENGTHS, row_len=st.integers(2, 20), size=st.integers(1, 8))
def test_only_the_last_filled_row_has_room_left(lengths: list[int], row_len: int, size: int) -> None:
    _, counts = fill(lengths, row_len, size)
    assert counts.num_padding < row_len


@given(lengths=LENGTHS, num_taken=st.integers(0, 20))
def test_a_buffer_filled_from_its_places_gives_the_same_documents(lengths: list[int], num_taken: int) -> None:
    buffer, again = Buffer(12, clips=True), Buffer(12, clips=True)
    by_place = {document.place: document for document in documents(lengths)}
    for document in by_place.values():
        buffer.add(document)
    for length in range(min(num_taken, len(lengths))):
        buffer.take_largest(length)
    for place in buffer.places():
        again.add(by_place[place])
    while len(buffer):
        assert again.take_shortest().place == buffer.take_shortest().place
    assert len(again) == 0


def test_the_share_thrown_away_is_reported() -> None:
    assert PackingCounts().discarded_ratio == 0.0
    assert PackingCounts(num_tokens=75, num_discarded=25).discarded_ratio == 0.25
