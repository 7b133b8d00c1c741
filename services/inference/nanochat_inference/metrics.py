"""What a worker counts, in a registry of its own. Names are the public contract's, suffixes vLLM's.

A request with n choices counts n times in everything but the latencies of whole requests. The replica adds its workers'
numbers up, and has a few of its own (pool/totals.py). Torch-free; what a GPU is doing is gpu.py's.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from nanochat.observability.metrics import (
    BATCH_SIZE_BUCKETS,
    INTER_TOKEN_LATENCY_BUCKETS,
    REQUEST_LATENCY_BUCKETS,
    TIME_TO_FIRST_TOKEN_BUCKETS,
)

# Closed sets, so that every series exists from the start.
FINISHED_REASONS = ("stop", "length", "abort", "error")
TOOL_OUTCOMES = ("result", "no_result")


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.num_requests_running = self._gauge("num_requests_running", "Choices in a slot.")
        self.num_requests_waiting = self._gauge("num_requests_waiting", "Choices waiting for a slot.")
        self.kv_cache_usage_ratio = self._gauge("kv_cache_usage_ratio", "Tokens in the caches over their room.")
        self.prompt_tokens = self._counter("prompt_tokens_total", "Tokens of prompts begun.")
        self.generation_tokens = self._counter("generation_tokens_total", "Tokens sampled.")
        self.request_success = self._counter(
            "request_success_total", "Choices ended, by how: abort is the client's leaving.", ["finished_reason"]
        )
        self.prefix_cache_queries = self._counter("prefix_cache_queries_total", "Prompt tokens looked for.")
        self.prefix_cache_hits = self._counter("prefix_cache_hits_total", "Prompt tokens found in the cache.")
        self.time_to_first_token = self._histogram(
            "time_to_first_token_seconds", "From arrival to the first token.", TIME_TO_FIRST_TOKEN_BUCKETS
        )
        self.inter_token_latency = self._histogram(
            "inter_token_latency_seconds", "Between tokens of a choice.", INTER_TOKEN_LATENCY_BUCKETS
        )
        self.e2e_request_latency = self._histogram(
            "e2e_request_latency_seconds", "From arrival to the last token.", REQUEST_LATENCY_BUCKETS
        )
        self.request_queue_time = self._histogram(
            "request_queue_time_seconds", "From arrival to a slot.", REQUEST_LATENCY_BUCKETS
        )
        self.batch_size = self._histogram("batch_size", "Rows in a step.", BATCH_SIZE_BUCKETS)
        self.tool_calls = self._counter("tool_calls_total", "Calculator calls, by outcome.", ["outcome"])
        self.worker_restarts = self._counter(
            "worker_restarts_total", "Workers started again, and recoveries from a failed step."
        )
        self.slot_leaks = self._counter(
            "slot_leaks_total", "Times that a worker without requests was found to hold slots or places for nobody."
        )
        for reason in FINISHED_REASONS:
            self.request_success.labels(reason)
        for outcome in TOOL_OUTCOMES:
            self.tool_calls.labels(outcome)

    def _gauge(self, name: str, text: str, labels: list[str] | None = None) -> Gauge:
        return Gauge(f"nanochat_{name}", text, labels or [], registry=self.registry)

    def _counter(self, name: str, text: str, labels: list[str] | None = None) -> Counter:
        return Counter(f"nanochat_{name}", text, labels or [], registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"nanochat_{name}", text, buckets=buckets, registry=self.registry)
