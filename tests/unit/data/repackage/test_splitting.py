"""Long documents in pieces."""

from hypothesis import given
from hypothesis import strategies as st

from nanochat.data.repackage.splitting import split_document

TEXTS = st.text(alphabet=st.sampled_from(list("ab .\n!가")), max_size=400)


@given(TEXTS, st.integers(min_value=1, max_value=60))
def test_pieces_are_short_enough_never_empty_and_lose_nothing_but_white_space(text: str, max_chars: int) -> None:
    pieces = list(split_document(text, max_chars))
    assert all(len(piece) <= max_chars and piece.strip() for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())


@given(st.text(max_size=50))
def test_a_short_text_comes_as_it_is(text: str) -> None:
    assert list(split_document(text, 50)) == ([text] if text.strip() else [])


def test_borders_are_paragraphs_then_lines_then_sentences_then_words() -> None:
    assert list(split_document("one two.\nthree\n\nfour five", 20)) == ["one two.\nthree", "four five"]
    assert list(split_document("one two three\nfour five", 18)) == ["one two three", "four five"]
    assert list(split_document("One two three. Four five", 18)) == ["One two three.", "Four five"]
    assert list(split_document("one two three four", 15)) == ["one two three", "four"]
    assert list(split_document("abcdefgh", 3)) == ["abc", "def", "gh"]


def test_a_border_far_from_the_end_is_passed_over_for_a_worse_one_that_is_near() -> None:
    assert list(split_document("a\n\n" + "word " * 5, 20)) == ["a\n\nword word word", "word word"]
