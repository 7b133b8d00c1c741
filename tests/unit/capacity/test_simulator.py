"""The simulation against what can be worked out on paper, and against the engine's own constants."""

import pytest

from nanochat.bench.serving.arrivals import Arrival, Pattern
from nanochat.capacity.simulator import MAX_CHUNK, MAX_STEP_TOKENS, simulate
from nanochat.engine import native_backend
from nanochat_inference.settings import InferenceSettings

from .curves_for_tests import curves


def arrival(time_s: float, prompt_tokens: int = 10, answer_tokens: int = 5) -> Arrival:
    return Arrival(time_s=time_s, prompt_tokens=prompt_tokens, answer_tokens=answer_tokens)


def test_a_request_alone_waits_for_nobody() -> None:
    [outcome] = simulate(curves(latency_s=0.1), [arrival(2.0)], 1).outcomes
    assert outcome.ttft_s == pytest.approx(0.11)
    assert outcome.tokens_per_second == pytest.approx(100)
    assert outcome.finished_s == pytest.approx(2.0 + 0.1 + 5 * 0.01)


def test_a_request_takes_its_overhead_from_the_engine() -> None:
    first, second = simulate(curves(max_running=2, request_s=0.02), [arrival(0.0), arrival(0.001)], 1).outcomes
    assert first.ttft_s == pytest.approx(0.03)
    # It joins at 30 ms: 20 ms of its own, its prompt, and a token of the first.
    assert second.first_token_s == pytest.approx(0.07)


def test_with_one_slot_the_second_waits_for_the_end_of_the_first() -> None:
    first, second = simulate(curves(), [arrival(0.0), arrival(0.001)], 1).outcomes
    assert first.finished_s == pytest.approx(0.05)
    assert second.first_token_s == pytest.approx(0.06)


def test_with_two_slots_the_second_joins_at_the_next_step_and_slows_the_first_by_its_prompt() -> None:
    two = curves(max_running=2, decode=[{"batch_size": 1, "context": 10, "step_s": 0.01}])
    first, second = simulate(two, [arrival(0.0), arrival(0.001)], 1).outcomes
    # Steps: prompt of the first (10 ms), then one with the second's prompt and a token of the first (20 ms).
    assert second.first_token_s == pytest.approx(0.03)
    assert first.finished_s == pytest.approx(0.03 + 3 * 0.01)


def test_the_mean_wait_is_that_of_a_queue_with_one_server_and_fixed_service() -> None:
    # Pollaczek and Khinchine for M/D/1: wait = rho s / (2 (1 - rho)). Here s = 5 tokens of 10 ms, rho = 0.6.
    service_s, load = 0.05, 0.6
    arrivals = Pattern(rate=load / service_s, prompt_tokens="10", answer_tokens="5").draw(40_000, seed=1)
    run = simulate(curves(), arrivals, 1)
    mean_wait_s = sum(outcome.ttft_s - 0.01 for outcome in run.outcomes) / len(run.outcomes)
    assert mean_wait_s == pytest.approx(load * service_s / (2 * (1 - load)), rel=0.05)  # of chance, at 40 000
    assert run.busy_ratio == pytest.approx(load, rel=0.02)


def test_what_finds_all_places_taken_is_refused_after_a_second_replica_was_asked() -> None:
    full = curves(max_running=1, max_waiting=1)
    at_once = [arrival(0.0) for _ in range(5)]
    assert [outcome.is_refused for outcome in simulate(full, at_once, 1).outcomes] == [False, False, True, True, True]
    assert [outcome.is_refused for outcome in simulate(full, at_once, 2).outcomes] == [False] * 4 + [True]


def test_replicas_share_the_requests() -> None:
    at_once = [arrival(0.0) for _ in range(4)]
    assert [outcome.finished_s for outcome in simulate(curves(), at_once, 4).outcomes] == pytest.approx([0.05] * 4)


def test_every_token_that_was_asked_for_is_given() -> None:
    arrivals = Pattern(rate=20, prompt_tokens="5-50", answer_tokens="~30").draw(300, seed=2)
    eight = curves(max_running=8, decode=[{"batch_size": n, "context": 10, "step_s": 0.01} for n in (1, 8)])
    for outcome in simulate(eight, arrivals, 2).outcomes:
        assert outcome.num_tokens == outcome.arrival.answer_tokens
        assert outcome.first_token_s is not None and outcome.finished_s is not None
        assert outcome.arrival.time_s < outcome.first_token_s <= outcome.finished_s


def test_longer_contexts_cost_what_the_curves_say() -> None:
    points = [{"batch_size": 1, "context": 1, "step_s": 0.01}, {"batch_size": 1, "context": 501, "step_s": 0.02}]
    [short] = simulate(curves(decode=points), [arrival(0.0, 1, 3)], 1).outcomes
    [long] = simulate(curves(decode=points), [arrival(0.0, 500, 3)], 1).outcomes
    assert short.tokens_per_second == pytest.approx(100, rel=0.01)
    assert long.tokens_per_second == pytest.approx(50, rel=0.01)


def test_a_long_prompt_comes_in_by_parts_beside_a_row_that_decodes() -> None:
    # A token of a prompt takes 1 ms alone, a decoding step 10 ms: 1.2 times that may be added to each.
    points = {
        "prefill": [{"num_tokens": n, "step_s": 0.001 * n} for n in (1, 1000)],
        "decode": [{"batch_size": 1, "context": 10, "step_s": 0.01}],
    }
    arrivals = [arrival(0.0, 16, 400), arrival(0.5, 800, 1)]
    first, second = simulate(curves(max_running=2, context_length=2048, **points), arrivals, 1).outcomes
    assert second.first_token_s is not None
    assert second.first_token_s - 0.5 == pytest.approx(800 / 16 * 0.026, rel=0.05)  # MIN_PROMPT_TOKENS at a time
    assert first.finished_s == pytest.approx(0.016 + 399 * 0.01 + 0.8, rel=0.02)


def test_its_rules_are_those_of_a_replica_with_its_default_settings() -> None:
    assert InferenceSettings.model_fields["max_step_tokens"].default == MAX_STEP_TOKENS
    assert native_backend.MAX_CHUNK == MAX_CHUNK
