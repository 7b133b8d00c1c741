"""The split of words."""

import random

from nanochat.tasks.words import draw_word, english_words, split_of


def test_no_word_is_in_both_splits() -> None:
    train, held_out = set(english_words("train")), set(english_words("held_out"))
    assert len(train) > 80_000
    assert 0.08 < len(held_out) / len(train | held_out) < 0.12
    assert not train & held_out


def test_words_are_lower_case_letters_of_bounded_length() -> None:
    for word in english_words("held_out"):
        assert word.isascii() and word.isalpha() and word.islower() and 2 <= len(word) <= 15


def test_made_up_words_never_are_held_out_ones() -> None:
    rng = random.Random(0)
    drawn = [draw_word(rng, "train", made_up_ratio=1.0) for _ in range(5000)]
    assert all(split_of(word) == "train" for word in drawn)
    assert set("".join(drawn)) == set("abcdefghijklmnopqrstuvwxyz")
    assert len(set(drawn) - set(english_words("train"))) > 4000


def test_held_out_words_are_real_ones() -> None:
    rng = random.Random(0)
    assert {draw_word(rng, "held_out") for _ in range(1000)} <= set(english_words("held_out"))
