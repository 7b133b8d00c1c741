"""The gateway's addresses, fields and metrics, written out: changing one of these lists changes the public contract."""

import httpx
from fastapi.routing import APIRoute
from prometheus_client.parser import text_string_to_metric_families

from nanochat.protocol.openai import ChatCompletionRequest, CompletionRequest
from nanochat_gateway import routes_chat, routes_completions, routes_health, routes_jobs, routes_models


def test_the_addresses_are_these() -> None:
    modules = (routes_chat, routes_completions, routes_models, routes_jobs, routes_health)
    routes = [route for module in modules for route in module.router.routes if isinstance(route, APIRoute)]
    found = {f"{method} {route.path}" for route in routes for method in route.methods - {"HEAD"}}
    assert found == {
        "POST /v1/chat/completions",
        "POST /chat/completions",
        "POST /v1/completions",
        "GET /v1/models",
        "GET /v1/models/{model}",
        "GET /v1/jobs",
        "POST /v1/jobs",
        "GET /v1/jobs/{job_id}",
        "POST /v1/jobs/{job_id}/cancel",
        "POST /v1/jobs/{job_id}/retry",
        "GET /v1/jobs/{job_id}/events",
        "GET /v1/jobs/{job_id}/metrics",
        "GET /v1/jobs/{job_id}/logs",
        "GET /v1/checkpoints",
        "GET /v1/checkpoints/{checkpoint_id:path}",
        "GET /v1/reports/{run}",
        "GET /v1/datasets",
        "POST /v1/datasets/{name}/download",
        "POST /v1/models/{name}/promote",
        "POST /v1/models/{name}/rollback",
        "GET /health/live",
        "GET /health/ready",
        "GET /health",
        "GET /stats",
        "GET /metrics",
    }


def test_the_fields_of_a_request_are_these() -> None:
    shared = {
        "model", "temperature", "top_p", "top_k", "stop", "seed", "n", "stream", "stream_options", "user",
        "presence_penalty", "frequency_penalty", "logit_bias", "min_p", "repetition_penalty", "response_format",
    }  # fmt: skip
    assert set(ChatCompletionRequest.model_fields) == shared | {
        "messages", "max_tokens", "max_completion_tokens", "logprobs", "top_logprobs",
        "tools", "tool_choice", "store", "service_tier",
    }  # fmt: skip
    assert set(CompletionRequest.model_fields) == shared | {
        "prompt", "max_tokens", "logprobs", "echo", "suffix", "best_of",
    }  # fmt: skip


def test_the_metrics_are_these(client: httpx.Client) -> None:
    client.get("/health/live")
    client.get("/v1/nothing")
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    families = {family.name: family for family in text_string_to_metric_families(response.text)}
    own = {
        name: family.type
        for name, family in families.items()
        if name.startswith("nanochat_") and not name.endswith("_created")  # the client library's own addition
    }
    assert own == {
        "nanochat_requests": "counter",
        "nanochat_request_duration_seconds": "histogram",
        "nanochat_streams_active": "gauge",
        "nanochat_rejected": "counter",
        "nanochat_build_info": "gauge",
    }
    assert {name for name in families if name.startswith("process_")}
    counted = {
        (sample.labels["route"], sample.labels["status"])
        for sample in families["nanochat_requests"].samples
        if sample.name == "nanochat_requests_total"
    }
    assert {("/health/live", "200"), ("unmatched", "404")} <= counted
