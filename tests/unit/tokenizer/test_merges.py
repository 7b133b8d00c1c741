"""Learning tokens: how far it is, and what passes through native code."""

import random

import pytest
import rustbpe

from nanochat.tokenizer.bpe import SPLIT_PATTERN
from nanochat.tokenizer.merges import cut_long_spaces, learn


def test_tokens_are_those_of_bare_rustbpe(texts: list[str]) -> None:
    bare = rustbpe.Tokenizer()
    bare.train_from_iterator(iter(texts), 311, pattern=SPLIT_PATTERN)
    assert learn(texts, 311, SPLIT_PATTERN) == [bytes(token) for token, _ in bare.get_mergeable_ranks()]


def test_merges_are_told_from_none_to_all() -> None:
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefgh", k=6)) for _ in range(2000)]
    heard: list[tuple[int, int]] = []
    learn(words, 456, SPLIT_PATTERN, lambda done, total: heard.append((done, total)))
    assert heard[0] == (0, 200)
    assert heard[-1] == (200, 200)
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)
    assert len({done for done, _ in heard}) >= 100  # each percent


def test_nobody_is_told_of_a_later_training(texts: list[str]) -> None:
    heard: list[int] = []
    learn(texts, 300, SPLIT_PATTERN, lambda done, total: heard.append(done))
    before = len(heard)
    learn(texts, 300, SPLIT_PATTERN)
    assert len(heard) == before > 0


def test_an_error_of_the_texts_comes_out_as_it_is() -> None:
    with pytest.raises(KeyError, match="gone"):
        learn(filter(_fail, ["a", "b"]), 300, SPLIT_PATTERN)


@pytest.mark.parametrize("text", ["", "a", " " * 199_999, "a" + " " * 200_000, " " * 450_000 + "b", "a" * 300_000])
def test_cutting_loses_nothing(text: str) -> None:
    pieces = list(cut_long_spaces([text]))
    assert "".join(pieces) == text
    assert all(len(piece) <= 200_000 or not piece.isspace() for piece in pieces)


def _fail(text: str) -> bool:
    if text == "b":
        raise KeyError("gone")
    return True
