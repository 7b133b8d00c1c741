"""A row's life, driven token by token without a model."""

from collections.abc import Callable

import pytest

from nanochat.engine.params import SamplingParams
from nanochat.engine.sequence import MAX_TOOL_CALLS, Sequence
from nanochat.errors import ContextTooLong
from nanochat.protocol.generate import Delta, TokenLogprob, ToolCall
from nanochat.tokenizer.bpe import Tokenizer

Make = Callable[..., Sequence]


@pytest.fixture
def make(tokenizer: Tokenizer) -> Make:
    def make(prompt: str = "hi", context_length: int = 100, **params: object) -> Sequence:
        ids = [tokenizer.bos_id, *tokenizer.encode(prompt)]
        return Sequence(ids, SamplingParams(**params), tokenizer, context_length)  # type: ignore[arg-type]

    return make


def _say(sequence: Sequence, tokenizer: Tokenizer, *parts: str) -> None:
    """Append texts byte by byte, and special tokens by their names."""
    for part in parts:
        if part.startswith("<|"):
            sequence.append(tokenizer.special_id(part))
        else:
            for token_id in tokenizer.encode(part):
                if sequence.is_finished:
                    return
                sequence.append(token_id)


def _text(events: list[Delta | ToolCall]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


def test_the_prompt_is_pending_first_and_then_each_sampled_token(make: Make, tokenizer: Tokenizer) -> None:
    sequence = make("hi")
    assert sequence.pending == [tokenizer.bos_id, *b"hi"]
    sequence.append(ord("a"))
    assert sequence.pending == [ord("a")]
    assert sequence.num_tokens == 4


@pytest.mark.parametrize("end", ["<|assistant_end|>", "<|bos|>"])
def test_the_end_tokens_stop_the_row_and_leave_no_text(make: Make, tokenizer: Tokenizer, end: str) -> None:
    sequence = make()
    _say(sequence, tokenizer, "ok", end)
    assert sequence.finish_reason == "stop"
    assert sequence.text == _text(sequence.take_events()) == "ok"
    assert sequence.num_sampled == 3


def test_max_tokens_counts_sampled_tokens(make: Make, tokenizer: Tokenizer) -> None:
    sequence = make(max_tokens=3)
    _say(sequence, tokenizer, "abcdef")
    assert (sequence.finish_reason, sequence.text) == ("length", "abc")


def test_a_full_context_ends_the_row(make: Make, tokenizer: Tokenizer) -> None:
    sequence = make("hi", context_length=5, max_tokens=50)
    _say(sequence, tokenizer, "abcdef")
    assert (sequence.finish_reason, sequence.text, sequence.num_tokens) == ("length", "ab", 5)


def test_a_prompt_that_leaves_no_room_is_refused_with_its_numbers(make: Make) -> None:
    with pytest.raises(ContextTooLong, match=r"the prompt has 9 tokens; the model takes 9"):
        make("12345678", context_length=9)
    assert make("1234567", context_length=9).pending


def test_a_stop_string_across_tokens_ends_the_row_before_it(make: Make, tokenizer: Tokenizer) -> None:
    sequence = make(stop=("END",))
    _say(sequence, tokenizer, "some ENENDmore")
    assert (sequence.finish_reason, sequence.text) == ("stop", "some EN")
    assert _text(sequence.take_events()) == "some EN"
    assert sequence.num_sampled == len("some ENEND")


def test_text_held_for_a_stop_string_comes_at_the_end_of_the_row(make: Make, tokenizer: Tokenizer) -> None:
    sequence = make(stop=("END",))
    _say(sequence, tokenizer, "theEN")
    assert _text(sequence.take_events()) == "the"
    _say(sequence, tokenizer, "<|assistant_end|>")
    assert _text(sequence.take_events()) == "EN"


def test_a_call_waits_for_its_answer_and_forces_the_result(make: Make, tokenizer: Tokenizer) -> None:
    sequence = make()
    _say(sequence, tokenizer, "So <|python_start|>"[:3], "<|python_start|>", "12*3", "<|python_end|>")
    assert sequence.expression == "12*3"
    sequence.answer("36")
    assert sequence.expression is None
    special = tokenizer.special_id
    forced = [special("<|output_start|>"), *b"36", special("<|output_end|>")]
    assert sequence.pending == [special("<|python_end|>"), *forced]
    assert sequence.is_sampled == [True] * 9 + [False] * 4
    assert sequence.num_sampled == 9
    _say(sequence, tokenizer, "done", "<|assistant_end|>")
    assert sequence.text == "So 12*3=36\ndone"


def test_a_call_is_told_with_the_place_of_its_span(make: Make, tokenizer: Tokenizer) -> None:
    sequence = make()
    _say(sequence, tokenizer, "é: ", "<|python_start|>", "1+1", "<|python_end|>")
    sequence.answer("2")
    _say(sequence, tokenizer, ". ", "<|python_start|>", "'a'", "<|python_end|>")
    sequence.answer(None)
    _say(sequence, tokenizer, "!", "<|assistant_end|>")
    assert sequence.text == "é: 1+1=2\n. 'a'=\n!"
    first, second = sequence.tool_calls
    assert (first.expression, first.result, sequence.text[first.start : first.end]) == ("1+1", "2", "1+1=2")
    assert (second.expression, second.result, sequence.text[second.start : second.end]) == ("'a'", None, "'a'=")
    events = sequence.take_events()
    assert [event for event in events if isinstance(event, ToolCall)] == [first, second]
    assert _text(events) == sequence.text
    told = 0
    for event in events:  # a call is told once its whole span has been
        if isinstance(event, Delta):
            told += len(event.text)
        else:
            assert told >= event.end


def test_the_expression_streams_while_it_is_written(make: Make, tokenizer: Tokenizer) -> None:
    sequence = make()
    _say(sequence, tokenizer, "<|python_start|>", "1+")
    assert _text(sequence.take_events()) == "1+"


def test_stop_strings_do_not_break_a_call(make: Make, tokenizer: Tokenizer) -> None:
    sequence = make(stop=("=", "\n", "x1"))
    _say(sequence, tokenizer, "x", "<|python_start|>", "1==1", "<|python_end|>")
    sequence.answer("True")
    _say(sequence, tokenizer, "ok\nno")
    assert (sequence.finish_reason, sequence.text) == ("stop", "x1==1=True\nok")


def test_the_end_token_inside_a_call_ends_the_row_without_an_answer(make: Make, tokenizer: Tokenizer) -> None:
    sequence = make()
    _say(sequence, tokenizer, "<|python_start|>", "1+1", "<|assistant_end|>")
    assert (sequence.finish_reason, sequence.text, sequence.expression) == ("stop", "1+1", None)


def test_a_call_at_the_last_token_is_not_made(make: Make, tokenizer: Tokenizer) -> None:
    sequence = make(max_tokens=3)
    _say(sequence, tokenizer, "<|python_start|>", "1", "<|python_end|>")
    assert (sequence.finish_reason, sequence.expression, sequence.tool_calls) == ("length", None, [])


def test_a_result_that_does_not_fit_is_told_and_ends_the_row(make: Make, tokenizer: Tokenizer) -> None:
    sequence = make("hi", context_length=10)
    _say(sequence, tokenizer, "<|python_start|>", "9*9", "<|python_end|>")
    sequence.answer("81")
    assert (sequence.finish_reason, sequence.text) == ("length", "9*9=81\n")
    assert sequence.num_tokens <= 10


def test_an_end_without_a_start_is_no_call(make: Make, tokenizer: Tokenizer) -> None:
    sequence = make()
    _say(sequence, tokenizer, "a", "<|python_end|>", "b", "<|output_start|>", "c")
    assert (sequence.text, sequence.expression) == ("abc", None)


def test_calls_beyond_the_bound_have_no_result_and_ask_nobody(make: Make, tokenizer: Tokenizer) -> None:
    sequence = make(context_length=1000)
    for _ in range(MAX_TOOL_CALLS):
        _say(sequence, tokenizer, "<|python_start|>", "1", "<|python_end|>")
        sequence.answer("1")
    _say(sequence, tokenizer, "<|python_start|>", "1", "<|python_end|>")
    assert sequence.expression is None
    assert sequence.tool_calls[-1].result is None
    assert len(sequence.tool_calls) == MAX_TOOL_CALLS + 1


def test_a_result_never_becomes_a_special_token(make: Make, tokenizer: Tokenizer) -> None:
    sequence = make()
    _say(sequence, tokenizer, "<|python_start|>", "1", "<|python_end|>")
    sequence.answer("<|assistant_end|>")
    assert tokenizer.special_id("<|assistant_end|>") not in sequence.pending


def _logprob(token_id: int) -> TokenLogprob:
    return TokenLogprob(token_id=token_id, token="", bytes=[], logprob=-1.0)


def test_log_probabilities_come_with_the_text_of_their_tokens(make: Make, tokenizer: Tokenizer) -> None:
    sequence = make(logprobs=0, stop=("END",))
    for character in "aENbENDc":
        if not sequence.is_finished:
            sequence.append(ord(character), _logprob(ord(character)))
    events = [event for event in sequence.take_events() if isinstance(event, Delta)]
    told = [chr(logprob.token_id) for event in events for logprob in event.logprobs or []]
    assert (sequence.text, told) == ("aENb", list("aENb"))


def test_log_probabilities_of_half_a_character_are_told_at_the_end(make: Make, tokenizer: Tokenizer) -> None:
    sequence = make(logprobs=0, max_tokens=2)
    for byte in "€".encode()[:2]:
        sequence.append(byte, _logprob(byte))
    (event,) = sequence.take_events()
    assert isinstance(event, Delta)
    assert (event.text, [logprob.token_id for logprob in event.logprobs or []]) == ("", [0xE2, 0x82])


def test_a_token_and_its_alternatives_are_named(make: Make, tokenizer: Tokenizer) -> None:
    end = tokenizer.special_id("<|assistant_end|>")
    named = make().token_logprob(0xE2, -1.0, [(end, -0.5), (ord("a"), -2.0)])
    assert (named.token, named.bytes) == ("\ufffd", [0xE2])
    assert [(other.token, other.bytes) for other in named.top] == [("<|assistant_end|>", []), ("a", [97])]


def test_the_same_seed_draws_the_same_numbers_and_choices_differ(tokenizer: Tokenizer) -> None:
    params = SamplingParams(seed=7, n=2)
    first, again, other = (Sequence([1], params, tokenizer, 10, index=index) for index in (0, 0, 1))
    numbers = [first.next_uniform() for _ in range(3)]
    assert numbers == [again.next_uniform() for _ in range(3)]
    assert numbers != [other.next_uniform() for _ in range(3)]
    unseeded = [Sequence([1], SamplingParams(), tokenizer, 10).next_uniform() for _ in range(2)]
    assert unseeded[0] != unseeded[1]


def test_what_nobody_asks_for_is_not_told(tokenizer: Tokenizer) -> None:
    params = SamplingParams()
    told, silent = (
        Sequence([tokenizer.bos_id], params, tokenizer, 100, has_events=has_events) for has_events in (True, False)
    )
    for sequence in (told, silent):
        _say(sequence, tokenizer, "is ", "<|python_start|>", "1+1", "<|python_end|>")
        sequence.answer("2")
        _say(sequence, tokenizer, "so", "<|assistant_end|>")
    assert silent.text == told.text and silent.generated_ids == told.generated_ids
    assert told.take_events() and not [event for event in silent.take_events() if isinstance(event, Delta)]
