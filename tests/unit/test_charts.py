"""Axes: where values lie, and round numbers along them."""

import pytest

from nanochat.charts import Axis, Frame, short


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 100, ["0", "20", "40", "60", "80", "100"]), (1.7, 4.1, ["2", "2.5", "3", "3.5", "4"]), (0, 6e6, ["0", "1M"])],
)
def test_ticks_are_round_and_within(low: float, high: float, expected: list[str]) -> None:
    ticks = Axis(low=low, high=high).ticks()
    assert [label for _, label in ticks][: len(expected)] == expected
    assert all(-1e-9 <= share <= 1 + 1e-9 for share, _ in ticks)


def test_logarithmic_axes_keep_ratios() -> None:
    axis = Axis(low=1, high=10_000, is_log=True)
    assert [round(axis.share(value), 6) for value in (1, 100, 10_000)] == [0, 0.5, 1]


@pytest.mark.parametrize("value", [0.0, 3.0, -2.0])
def test_a_single_value_has_an_axis(value: float) -> None:
    assert 0 < Axis.around([value]).share(value) < 1
    assert Axis.between(value, value).share(value) == 0


def test_higher_values_are_higher_up() -> None:
    frame = Frame(x=Axis(low=0, high=10), y=Axis(low=0, high=4), width=100, height=80)
    assert frame.at((5, 1)) == (50, 60)
    assert frame.at((10, 4)) == (100, 0)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.25, "0.25"), (4096, "4096"), (12_000, "12k"), (2.5e6, "2.5M"), (2e-5, "2.0e-05"), (0, "0")],
)
def test_numbers_along_an_axis_are_short(value: float, expected: str) -> None:
    assert short(value) == expected
