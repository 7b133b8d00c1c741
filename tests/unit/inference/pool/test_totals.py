"""Workers' metrics add up, and no counter goes backwards when a worker is lost."""

from nanochat_inference.metrics import Metrics
from nanochat_inference.pool.totals import Totals, snapshot
from nanochat_inference.pool.usage import UsageCollector

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


def test_what_a_workers_process_uses_has_its_name_and_goes_with_it() -> None:
    totals = Totals()
    names = [{"worker": str(number), "device": "cpu"} for number in range(2)]
    registries = [worker(0, 0, 0.0, 1.0).registry for _ in names]
    for number, registry in enumerate(registries):
        registry.register(UsageCollector(number, "cpu"))
        totals.take(number, snapshot(registry))

    def values(name: str) -> list[float | None]:
        return [totals.registry.get_sample_value(f"nanochat_worker_{name}", labels) for labels in names]

    assert all(size is not None and size > 2**20 for size in values("resident_memory_bytes"))
    before = values("cpu_seconds_total")
    assert all(before)
    for number in range(2):
        totals.lose(number)
    assert (values("cpu_seconds_total"), values("resident_memory_bytes")) == (before, [None, None])
    totals.take(0, snapshot(registries[0]))  # a new life adds to the old one's
    assert values("cpu_seconds_total")[0] >= 2 * before[0]


def test_what_no_worker_can_count_is_added() -> None:
    totals = Totals()
    totals.add("nanochat_worker_restarts_total", 1)
    totals.take(0, snapshot(worker(0, 0, 0, 1).registry))
    assert totals.registry.get_sample_value("nanochat_worker_restarts_total") == 1
