"""What the comparison of recipes by the clock concludes from its runs; the runs themselves are by hand."""

from typing import Any, cast

import pytest

from tests.bench.time_to_quality import Bench, Run, compare, pace


class Told:
    """A bench whose runs are known: bits per byte by name."""

    def __init__(self, bpb: dict[str, float]) -> None:
        self.bpb = bpb
        self.quick: dict[str, Any] = {}
        self.asked: dict[str, float] = {}

    def reference(self, batch_tokens: int) -> dict[str, Any]:
        return {}

    def run(self, name: str, config: dict[str, Any], seconds: float) -> Run:
        self.asked[name] = seconds
        return Run(
            name=name,
            num_steps=1,
            tokens=1,
            train_seconds=seconds,
            job_seconds=seconds + 20.0,
            val_bpb=self.bpb[name],
        )


def concluded(bpb: dict[str, float]) -> tuple[dict[str, float], bool]:
    bench = Told(bpb)
    _, was_reached = compare(cast(Bench, bench), 600.0, (4096, 8192), (0.4, 0.7))
    return bench.asked, was_reached


def test_the_best_batch_is_to_be_reached_in_the_shortest_time_that_does(capsys: pytest.CaptureFixture[str]) -> None:
    bpb = {"reference-4096": 1.9, "reference-8192": 1.8, "quick-0.4": 1.85, "quick-0.7": 1.8}
    asked, was_reached = concluded(bpb)
    assert was_reached
    assert asked == {"reference-4096": 600.0, "reference-8192": 600.0, "quick-0.4": 240.0, "quick-0.7": 420.0}
    assert "reached reference-8192's 1.8000 in 0.700 of its steps' time, 0.710 of its job's" in capsys.readouterr().out


def test_no_more_is_run_once_it_was_reached() -> None:
    asked, was_reached = concluded({"reference-4096": 1.8, "reference-8192": 1.9, "quick-0.4": 1.7})
    assert was_reached
    assert "quick-0.7" not in asked


def test_what_was_not_reached_is_said() -> None:
    _, was_reached = concluded({"reference-4096": 1.8, "reference-8192": 1.9, "quick-0.4": 2.0, "quick-0.7": 1.9})
    assert not was_reached


def test_the_first_steps_do_not_set_the_pace() -> None:
    assert pace([30.0, 31.0, 32.0, 33.0, 34.0, 34.5, 35.0, 37.0]) == pytest.approx(0.5)
