"""Arrivals: drawn at the asked rate and lengths, or read from a trace; what is none is refused."""

import random
from pathlib import Path
from statistics import mean

import pytest

from nanochat.bench.serving.arrivals import Arrival, Pattern, cut_to_context, lengths, read_trace
from nanochat.errors import DataError, InvalidConfig


def test_the_rate_and_the_lengths_are_those_asked_for() -> None:
    drawn = Pattern(rate=4.0, prompt_tokens="20-40", answer_tokens="~50").draw(20_000, seed=1)
    assert len(drawn) / drawn[-1].time_s == pytest.approx(4.0, rel=0.03)
    assert {one.prompt_tokens for one in drawn} == set(range(20, 41))
    assert mean(one.answer_tokens for one in drawn) == pytest.approx(50, rel=0.03)


def test_another_rate_with_the_same_seed_brings_the_same_requests_sooner() -> None:
    slow, fast = (Pattern(rate=rate, prompt_tokens="9-99", answer_tokens="7").draw(50, seed=3) for rate in (1.0, 2.0))
    assert [one.prompt_tokens for one in slow] == [one.prompt_tokens for one in fast]
    assert [one.time_s / 2 for one in slow] == pytest.approx([one.time_s for one in fast])


def test_a_plain_number_is_always_that() -> None:
    assert {lengths("50")(random.Random(n)) for n in range(20)} == {50}


@pytest.mark.parametrize("text", ["", "0", "-5", "20-10", "~20-40", "many", "1.5", "99999999"])
def test_what_is_no_length_is_refused(text: str) -> None:
    with pytest.raises(InvalidConfig, match="is no length in tokens"):
        lengths(text)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_what_is_no_rate_is_refused(rate: float) -> None:
    with pytest.raises(InvalidConfig, match="requests a second"):
        Pattern(rate=rate, prompt_tokens="1", answer_tokens="1").draw(1, seed=1)


def test_a_trace_is_read(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(
        '{"time_s": 0.0, "prompt_tokens": 3, "answer_tokens": 4}\n\n'
        '{"time_s": 1.5, "prompt_tokens": 1, "answer_tokens": 2}\n'
    )
    assert [one.time_s for one in read_trace(path)] == [0.0, 1.5]


@pytest.mark.parametrize(
    ("second_line", "said"),
    [
        ("{", "line 2"),
        ('{"time_s": 2.0, "prompt_tokens": 0, "answer_tokens": 2}', "line 2: prompt_tokens"),
        ('{"time_s": 2.0, "prompt_tokens": 1}', "line 2: answer_tokens"),
        ('{"time_s": 0.5, "prompt_tokens": 1, "answer_tokens": 2}', "sort the lines"),
        ("[]", "line 2"),
    ],
)
def test_a_bad_line_is_named(second_line: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text('{"time_s": 1.0, "prompt_tokens": 3, "answer_tokens": 4}\n' + second_line)
    with pytest.raises(DataError, match=said):
        read_trace(path)


def test_an_empty_trace_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trace.jsonl").write_text("\n")
    with pytest.raises(DataError, match="holds no request"):
        read_trace(tmp_path / "trace.jsonl")


def test_answers_end_with_the_context() -> None:
    [cut] = cut_to_context([Arrival(time_s=0, prompt_tokens=90, answer_tokens=50)], 100)
    assert cut.answer_tokens == 10
    with pytest.raises(InvalidConfig, match="no room in a context of 100"):
        cut_to_context([Arrival(time_s=0, prompt_tokens=100, answer_tokens=1)], 100)
