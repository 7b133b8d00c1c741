"""Curves whose costs are round numbers."""

from typing import Any

from nanochat.capacity.curves import Curves


def curves(**changes: Any) -> Curves:
    """One row at a time unless changed; 10 ms a decode step and for a prompt of whatever length."""
    values: dict[str, Any] = {
        "model": "m",
        "context_length": 1000,
        "max_running": 1,
        "max_waiting": 100_000,
        "latency_s": 0.0,
        "decode": [{"batch_size": 1, "context": 10, "step_s": 0.01}],
        "prefill": [{"num_tokens": 10, "step_s": 0.01}],
    }
    return Curves.model_validate({**values, **changes})
