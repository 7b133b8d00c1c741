from nanochat.protocol.generate import TokenLogprob
from nanochat_gateway.completions import LogprobWriter


def token(text: str, logprob: float, *top: TokenLogprob, data: bytes | None = None) -> TokenLogprob:
    return TokenLogprob(
        token_id=0, token=text, bytes=list(text.encode() if data is None else data), logprob=logprob, top=list(top)
    )


def test_offsets_go_on_from_one_piece_to_the_next() -> None:
    writer = LogprobWriter()
    writer.add([None, token("ab", -1)])
    assert writer.take().text_offset == [0, 0]
    writer.add([token("c", -1), token("d", -1)])
    assert writer.take().text_offset == [2, 3]


def test_special_tokens_take_no_room_in_the_text() -> None:
    writer = LogprobWriter()
    writer.add([token("<|assistant_end|>", -1, data=b""), token("x", -1)])
    assert writer.take().text_offset == [0, 0]


def test_the_sampled_token_is_among_the_alternatives() -> None:
    writer = LogprobWriter()
    writer.add([token("rare", -9.0, token("a", -0.1), token("b", -0.2))])
    assert writer.take().top_logprobs == [{"rare": -9.0, "a": -0.1, "b": -0.2}]


def test_of_alternatives_with_the_same_text_the_likelier_stays() -> None:
    # Halves of characters all read as U+FFFD.
    writer = LogprobWriter()
    writer.add([token("\ufffd", -1.0, token("\ufffd", -0.5), token("\ufffd", -2.0))])
    assert writer.take().top_logprobs == [{"\ufffd": -0.5}]
