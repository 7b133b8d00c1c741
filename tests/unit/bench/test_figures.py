"""Percentiles, targets, and what a run comes to."""

import pytest

from nanochat.bench.serving.client import Answer
from nanochat.bench.serving.figures import Spread, Targets, load_figures, percentile
from nanochat.bench.serving.load import Run
from nanochat.errors import InvalidConfig


def answer(chunks_s: list[float], *, sent_s: float = 0.0, max_tokens: int = 3, error: str = "") -> Answer:
    return Answer(
        sent_s=sent_s,
        max_tokens=max_tokens,
        chunks_s=chunks_s,
        finished_s=chunks_s[-1] if chunks_s else None,
        num_tokens=len(chunks_s),
        error=error,
        is_open=False,
    )


@pytest.mark.parametrize(("ratio", "value"), [(0.05, 1), (0.5, 10), (0.95, 19), (1.0, 20)])
def test_percentiles_are_values_that_were_seen(ratio: float, value: float) -> None:
    assert percentile(list(range(20, 0, -1)), ratio) == value


def test_gaps_of_all_answers_count_alike() -> None:
    run = Run(answers=[answer([1.0, 1.1, 1.2]), answer([2.0, 5.0], max_tokens=2)], duration_s=10.0)
    found = load_figures(run, Targets())
    assert found.itl.p50 == pytest.approx(0.1) and found.itl.max == pytest.approx(3.0)
    assert found.output_tokens_per_second == pytest.approx(0.5)


def test_latencies_are_those_of_good_answers() -> None:
    run = Run(
        answers=[answer([1.0, 2.0]), answer([], error="timeout"), answer([9.0], error="cut off")], duration_s=10.0
    )
    found = load_figures(run, Targets())
    assert found.ttft.max == 1.0
    assert found.errors == {"cut off": 1, "timeout": 1} and found.num_errors == 2


def test_nothing_measured_is_no_zero() -> None:
    assert Spread.of([]).p50 is None


@pytest.mark.parametrize(
    ("target", "is_met"),
    [
        ("ttft=1s", True),
        ("ttft=999ms", False),
        ("itl=3s", True),
        ("itl=2.9s", False),
        ("tpot=2s", True),
        ("e2e=4s", False),
    ],
)
def test_targets_are_held_by_each_answer(target: str, is_met: bool) -> None:
    assert Targets.parse(target).are_met(answer([1.0, 2.0, 5.0])) is is_met


def test_a_failed_answer_meets_no_target() -> None:
    assert not Targets().are_met(answer([1.0], error="cut off"))
    assert (
        load_figures(Run(answers=[answer([1.0]), answer([], error="timeout")], duration_s=1.0), Targets()).good_ratio
        == 0.5
    )


@pytest.mark.parametrize("text", ["ttft", "ttft=5", "speed=3s", "ttft=0ms", "ttft=-1s", "ttft=1s itl=2s"])
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(InvalidConfig, match="is no target"):
        Targets.parse(text)
