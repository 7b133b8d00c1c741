"""Workers' metrics add up, and no counter goes backwards when a worker is lost."""

from nanochat_inference.metrics import Metrics
from nanochat_inference.pool.totals import Totals, snapshot

TTFT = "nanochat_time_to_first_token_seconds"


def worker(tokens: int, running: int, usage: float, ttft: float) -> Metrics:
    metrics = Metrics()
    metrics.generation_tokens.inc(tokens)
    metrics.num_requests_running.set(running)
    metrics.kv_cache_usage_ratio.set(usage)
    metrics.time_to_first_token.observe(ttft)
    metrics.request_success.labels("stop").inc(2)
    return metrics


def values(totals: Totals) -> tuple[float | None, ...]:
    """Tokens, stops, running, usage, first tokens within 5 ms and in all."""
    value = totals.registry.get_sample_value
    return (
        value("nanochat_generation_tokens_total"),
        value("nanochat_request_success_total", {"finished_reason": "stop"}),
        value("nanochat_num_requests_running"),
        value("nanochat_kv_cache_usage_ratio"),
        value(f"{TTFT}_bucket", {"le": "0.005"}),
        value(f"{TTFT}_count"),
    )


def test_every_series_is_there_at_zero_before_any_worker() -> None:
    assert values(Totals()) == (0, 0, 0, 0, 0, 0)


def test_workers_add_up_and_ratios_are_averaged() -> None:
    totals = Totals()
    totals.take(0, snapshot(worker(5, 2, 0.5, 0.001).registry))
    totals.take(1, snapshot(worker(7, 1, 0.1, 1.0).registry))
    assert values(totals) == (12, 4, 3, 0.3, 1, 2)


def test_what_a_lost_worker_counted_stays_and_what_it_measured_goes() -> None:
    totals = Totals()
    totals.take(0, snapshot(worker(5, 2, 0.5, 0.001).registry))
    totals.lose(0)
    assert values(totals) == (5, 2, 0, 0, 1, 1)
    totals.take(0, snapshot(worker(1, 1, 0.2, 0.001).registry))
    totals.lose(0)
    totals.lose(0)
    assert values(totals) == (6, 4, 0, 0, 2, 2)


def test_what_no_worker_can_count_is_added() -> None:
    totals = Totals()
    totals.add("nanochat_worker_restarts_total", 1)
    totals.take(0, snapshot(worker(0, 0, 0, 1).registry))
    assert totals.registry.get_sample_value("nanochat_worker_restarts_total") == 1
