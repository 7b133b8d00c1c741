"""Whole characters, and nothing that may yet be a stop string."""

import random

import pytest

from nanochat.engine.text import TextStream


def test_text_grows_by_whole_characters_only() -> None:
    stream = TextStream()
    seen = []
    for byte in "aé€😀z".encode():
        stream.push(bytes([byte]))
        seen.append(stream.text)
    assert seen == ["a", "a", "aé", "aé", "aé", "aé€", "aé€", "aé€", "aé€", "aé€😀", "aé€😀z"]


def test_bytes_that_are_no_text_become_replacement_characters() -> None:
    stream = TextStream()
    stream.push(b"a\xff\xc3b")
    assert stream.text == "a\ufffd\ufffdb"


def test_an_incomplete_character_is_left_out_at_the_end_and_replaced_before_other_text() -> None:
    ended, interrupted = TextStream(), TextStream()
    for stream in (ended, interrupted):
        stream.push("a€".encode()[:-1])
    ended.finish()
    interrupted.write("=1")
    assert ended.text == "a"
    assert interrupted.text == "a\ufffd=1"


def test_a_stop_string_across_pieces_is_found_and_never_shown() -> None:
    stream = TextStream(("END",))
    shown = []
    for piece in (b"abE", b"N", b"D and more"):
        stream.push(piece)
        shown.append(stream.text)
    assert shown == ["ab", "ab", "ab"]
    assert stream.is_stopped


def test_held_text_is_released_once_it_cannot_be_a_stop_string() -> None:
    stream = TextStream(("END", "NX"))
    stream.push(b"abEN")
    assert stream.text == "ab"
    stream.push(b"Q")
    assert stream.text == "abENQ"
    stream.push(b"E")
    stream.finish()
    assert stream.text == "abENQE"
    assert not stream.is_stopped


def test_the_first_stop_string_to_appear_wins() -> None:
    stream = TextStream(("cd", "b"))
    stream.push(b"abcd")
    assert stream.text == "a"


def test_text_of_tools_is_not_searched_and_parts_stop_strings() -> None:
    stream = TextStream(("=", "ab"))
    stream.push(b"a")
    stream.flush()
    stream.push(b"b=", may_stop=False)
    stream.write("=3\n")
    stream.push(b"b")
    assert stream.text == "ab==3\nb"
    assert not stream.is_stopped


@pytest.mark.parametrize("seed", range(20))
def test_streamed_text_equals_the_whole_cut_at_the_first_stop(seed: int) -> None:
    rng = random.Random(seed)
    whole = "".join(rng.choice("aab€") for _ in range(60))
    stop = tuple("".join(rng.choice("ab€") for _ in range(rng.randint(2, 5))) for _ in range(2))
    cuts = [at for at in map(whole.find, stop) if at >= 0]
    expected = whole[: min(cuts)] if cuts else whole
    data, stream = whole.encode(), TextStream(stop)
    while data and not stream.is_stopped:
        size = rng.randint(1, 6)
        stream.push(data[:size])
        data = data[size:]
        assert expected.startswith(stream.text)
    stream.finish()
    # Pieces may hold several stop strings at once: the earliest in the text ends it, as in the whole.
    assert stream.text == expected
    assert stream.is_stopped == bool(cuts)
