"""Curves are read between their points, and a file that is none is named with its field."""

import json
from pathlib import Path

import pytest

from nanochat.capacity.curves import Curves, interpolate
from nanochat.errors import InvalidConfig

from .curves_for_tests import curves

POINTS = [(1, 10.0), (3, 20.0), (4, 21.0)]


@pytest.mark.parametrize(("x", "y"), [(0, 10.0), (1, 10.0), (2, 15.0), (3, 20.0), (3.5, 20.5), (4, 21.0), (6, 23.0)])
def test_between_points_a_line_and_beyond_them_the_last_slope(x: float, y: float) -> None:
    assert interpolate(POINTS, x) == pytest.approx(y)


def test_a_falling_end_is_not_followed() -> None:
    assert interpolate([(1, 10.0), (2, 5.0)], 100) == 5.0


def test_rows_and_context_are_both_interpolated() -> None:
    points = [
        {"batch_size": size, "context": context, "step_s": step_s}
        for size, context, step_s in ((1, 10, 1.0), (1, 30, 2.0), (3, 10, 3.0), (3, 30, 6.0))
    ]
    found = curves(max_running=3, decode=points)
    assert found.decode_s(1, 20) == pytest.approx(1.5)
    assert found.decode_s(2, 20) == pytest.approx((1.5 + 4.5) / 2)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "curves.json"
    path.write_text(curves().model_dump_json())
    assert Curves.load(path) == curves()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"latency_s": -1.0}, "latency_s"),
        ({"decode": []}, "decode"),
        ({"decode": [{"batch_size": 2, "context": 1, "step_s": 0.1}]}, "no point with batch_size 1"),
        ({"prefill": [{"num_tokens": 1, "step_s": 0.0}]}, "prefill.0.step_s"),
        ({"speed": 1}, "speed"),
    ],
)
def test_a_wrong_file_is_named_with_its_field(change: dict[str, object], said: str, tmp_path: Path) -> None:
    path = tmp_path / "curves.json"
    path.write_text(json.dumps({**curves().model_dump(), **change}))
    with pytest.raises(InvalidConfig, match=said) as refused:
        Curves.load(path)
    assert str(path) in refused.value.message


def test_a_missing_file_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="nanochat bench curves"):
        Curves.load(tmp_path / "none.json")
