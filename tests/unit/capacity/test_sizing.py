"""The fewest replicas that hold a target, and none fewer."""

import pytest

from nanochat.bench.serving.arrivals import Pattern
from nanochat.capacity.sizing import Target, gateways, size
from nanochat.errors import InvalidConfig

from .curves_for_tests import curves

# One replica answers 20 requests a second at most: 5 tokens of 10 ms, one after the other.
ARRIVALS = Pattern(rate=50.0, prompt_tokens="10", answer_tokens="5").draw(2000, seed=1)


def test_the_answer_holds_and_one_fewer_does_not() -> None:
    tried = size(curves(), ARRIVALS, Target(ttft_s=0.2), max_replicas=64)
    [*too_few, enough] = [one for one in tried if one.num_replicas <= first_that_holds(tried, Target(ttft_s=0.2))]
    assert enough.num_replicas in (3, 4)
    assert too_few[-1].num_replicas == enough.num_replicas - 1
    assert too_few[-1].ttft_p95_s > 0.2 >= enough.ttft_p95_s


def first_that_holds(tried: list, target: Target) -> int:  # type: ignore[type-arg]
    return next(one.num_replicas for one in tried if one.holds(target))


def test_a_speed_that_no_replica_has_is_held_by_no_number_of_them() -> None:
    target = Target(ttft_s=10.0, tokens_per_second=101.0)
    tried = size(curves(), ARRIVALS, target, max_replicas=16)
    assert not any(one.holds(target) for one in tried)
    assert tried[-1].num_replicas == 16


def test_a_refused_request_counts_as_a_first_token_that_never_came() -> None:
    [one] = size(curves(max_waiting=0), ARRIVALS, Target(ttft_s=1.0), max_replicas=1)
    assert one.num_refused > 100
    assert one.ttft_p95_s == float("inf")
    assert one.tokens_per_second_p5 == 0.0


@pytest.mark.parametrize(
    "values", [{"ttft_s": 0.0}, {"ttft_s": float("nan")}, {"ttft_s": 1.0, "tokens_per_second": -1.0}]
)
def test_what_is_no_target_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(InvalidConfig, match="is no target"):
        Target(**values)


def test_gateways_are_as_many_as_their_cores_bear() -> None:
    measured = curves(gateway_token_s=0.0002)
    assert [gateways(measured, rate) for rate in (0, 2900, 3100, 30_000)] == [1, 1, 2, 10]


def test_without_a_measured_cost_nothing_is_said_of_gateways() -> None:
    assert gateways(curves(), 1000.0) is None
