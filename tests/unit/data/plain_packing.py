"""Best fit by its definition, written for reading: what packing.py is held against, here and in the benchmark.

Looks at every waiting document for each one that it places, so O(n) a document. Knows lengths alone.
"""

from collections.abc import Iterable, Iterator

PlainRow = list[tuple[int, int]]  # (document, tokens of it in the row)


def plain_fill(lengths: Iterable[int], row_len: int, size: int) -> Iterator[PlainRow]:
    """Pretraining: the largest that fits, of a buffer of `size`; where none fits the shortest, cut. Oldest first."""
    coming = enumerate(lengths)
    waiting: PlainRow = []
    while _refill(waiting, coming, size):
        row: PlainRow = []
        space = row_len
        while space and _refill(waiting, coming, size):
            fitting = [document for document in waiting if document[1] <= space]
            # The first of equals, by both.
            best = max(fitting, key=_length) if fitting else min(waiting, key=_length)
            waiting.remove(best)
            row.append((best[0], min(best[1], space)))
            space -= row[-1][1]
        yield row


def plain_pad(lengths: Iterable[int], row_len: int, size: int) -> Iterator[PlainRow]:
    """Fine-tuning: documents count as no longer than a row, and a row that nothing fits is left as it is."""
    coming = enumerate(min(length, row_len) for length in lengths)
    waiting: PlainRow = []
    while _refill(waiting, coming, size):
        row: PlainRow = []
        space = row_len
        while fitting := [document for document in waiting if document[1] <= space]:
            best = max(fitting, key=_length)
            waiting.remove(best)
            row.append(best)
            space -= best[1]
            if not _refill(waiting, coming, size):
                break
        yield row


def _refill(waiting: PlainRow, coming: Iterator[tuple[int, int]], size: int) -> bool:
    while len(waiting) < size and (document := next(coming, None)):
        waiting.append(document)
    return bool(waiting)


def _length(document: tuple[int, int]) -> int:
    return document[1]
