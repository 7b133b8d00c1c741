"""What users get, and what the engine does for them."""

from boards.dashboard import Dashboard, Row
from boards.panels import Graph, Heatmap, Number, Query
from boards.queries import BY_INSTANCE, buckets, increase, mean, quantiles, rate

CHAT = 'route="/v1/chat/completions"'
ASKED = 'route!~"/health.*|/metrics"'

SERVICE = Dashboard(
    "service",
    "nanochat: Service",
    "What users get: requests, latencies, tokens, and what the engine does for them.",
    [
        Row(
            "Now",
            [
                Number("Requests", "reqps", [Query("stack:nanochat_requests:rate5m")]),
                Number(
                    "Errors of ours",
                    "percentunit",
                    [Query("stack:nanochat_request_errors:ratio_rate5m")],
                    "Answers with a status from 500 on, of all.",
                    orange=0.01,
                    red=0.05,
                ),
                Number(
                    "First token, p95",
                    "s",
                    [Query("stack:nanochat_time_to_first_token_seconds:p95_rate5m")],
                    orange=1,
                    red=2,
                ),
                Number("Generated", "suffix: tok/s", [Query("stack:nanochat_generation_tokens:rate1m")]),
                Number("Waiting for a slot", "short", [Query("sum(nanochat_num_requests_waiting)")], orange=1, red=16),
                Number(
                    "Replicas with a model",
                    "short",
                    [Query("count(nanochat_model_info) or vector(0)")],
                    red=1,
                    low_is_bad=True,
                ),
            ],
            columns=6,
        ),
        Row(
            "Requests",
            [
                Graph("By route", "reqps", [Query(rate("nanochat_requests_total", "route", ASKED), "{{route}}")]),
                Graph("By status", "reqps", [Query(rate("nanochat_requests_total", "status", ASKED), "{{status}}")]),
                Graph("Refused, by reason", "reqps", [Query(rate("nanochat_rejected_total", "reason"), "{{reason}}")]),
                Graph(
                    "Errors of ours",
                    "percentunit",
                    [
                        Query("stack:nanochat_request_errors:ratio_rate5m", "requests"),
                        Query("stack:nanochat_generation_errors:ratio_rate5m", "answers begun"),
                    ],
                    "A stream that breaks after its first token was answered with 200: it is among the answers begun.",
                ),
                Graph("Open streams", "short", [Query("nanochat_streams_active", BY_INSTANCE)], stacked=True),
                Graph(
                    "Answers, by how they ended",
                    "reqps",
                    [Query(rate("nanochat_request_success_total", "finished_reason"), "{{finished_reason}}")],
                    "abort: the client left.",
                ),
            ],
        ),
        Row(
            "Latency",
            [
                Heatmap("Time to first token", "s", buckets("nanochat_time_to_first_token_seconds")),
                Heatmap("Between tokens", "s", buckets("nanochat_inter_token_latency_seconds")),
                Heatmap("Whole chats, at the gateway", "s", buckets("nanochat_request_duration_seconds", CHAT)),
                Graph("Time to first token", "s", quantiles("nanochat_time_to_first_token_seconds")),
                Graph("Between tokens", "s", quantiles("nanochat_inter_token_latency_seconds")),
                Graph("Whole answers, at inference", "s", quantiles("nanochat_e2e_request_latency_seconds")),
                Heatmap("Wait for a slot", "s", buckets("nanochat_request_queue_time_seconds")),
                Graph("Wait for a slot", "s", quantiles("nanochat_request_queue_time_seconds")),
                Graph(
                    "p95 by route, at the gateway",
                    "s",
                    [
                        Query(
                            "histogram_quantile(0.95, "
                            + rate("nanochat_request_duration_seconds_bucket", "le, route", ASKED)
                            + ")",
                            "{{route}}",
                        )
                    ],
                ),
            ],
        ),
        Row(
            "Engine",
            [
                Graph(
                    "Tokens",
                    "suffix: tok/s",
                    [
                        Query(rate("nanochat_generation_tokens_total"), "generated"),
                        Query(rate("nanochat_prompt_tokens_total"), "of prompts"),
                    ],
                ),
                Graph(
                    "Choices",
                    "short",
                    [
                        Query("sum(nanochat_num_requests_running)", "in a slot"),
                        Query("sum(nanochat_num_requests_waiting)", "waiting"),
                    ],
                    stacked=True,
                ),
                Heatmap("Rows in a step", "short", buckets("nanochat_batch_size")),
                Graph("Mean rows in a step", "short", [Query(mean("nanochat_batch_size"), "rows")]),
                Graph("Cache in use", "percentunit", [Query("nanochat_kv_cache_usage_ratio", "{{instance}}")], max=1),
                Graph(
                    "Prefix cache hits",
                    "percentunit",
                    [Query("stack:nanochat_prefix_cache_hits:ratio_rate5m", "of the prompts' tokens")],
                    max=1,
                ),
                Graph("Calculator calls", "ops", [Query(rate("nanochat_tool_calls_total", "outcome"), "{{outcome}}")]),
                Graph(
                    "Recoveries of the engine",
                    "short",
                    [Query(increase("nanochat_worker_restarts_total", "instance"), "{{instance}}")],
                    "From a step that failed; its requests were told.",
                ),
                Graph("Model served", "short", [Query("nanochat_model_info", "{{instance}} {{checkpoint}}")]),
            ],
        ),
    ],
)
