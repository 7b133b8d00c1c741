"""How long is waited between attempts."""

from datetime import UTC, datetime

import pytest

from nanochat.data.hub.patience import Patience, parse_retry_after
from nanochat.errors import Unavailable


def test_pauses_double_up_to_a_bound_and_have_chance_in_them() -> None:
    patience = Patience(first_pause_s=1.0, longest_pause_s=10.0)
    assert [patience.pause_s(failures, None, 1.0) for failures in range(1, 7)] == [1, 2, 4, 8, 10, 10]
    assert [patience.pause_s(failures, None, 0.0) for failures in range(1, 4)] == [0.5, 1, 2]


def test_it_is_never_tried_sooner_than_the_server_asked_for() -> None:
    patience = Patience(first_pause_s=1.0)
    assert patience.pause_s(1, 30.0, 0.0) >= 30.0
    assert patience.pause_s(1, 30.0, 1.0) > patience.pause_s(1, 30.0, 0.0)
    with pytest.raises(Unavailable):
        patience.pause_s(1, 901.0, 0.0)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 120 ", 120.0),
        ("Wed, 21 Oct 2026 07:28:10 GMT", 10.0),
        ("Wed, 21 Oct 2026 07:27:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, now=datetime(2026, 10, 21, 7, 28, 0, tzinfo=UTC)) == seconds
