"""The constants of checkpoints that were made before today's model, as configurations name them."""

from typing import Any

# Published first: no part that came later.
FIRST: dict[str, Any] = {
    "window_pattern": "L",
    "rotary_base": 10_000.0,
    "qk_scale": 1.0,
    "value_embeddings": False,
    "smear": False,
    "backout": False,
}
# With value embeddings: wide gates of range 2, half windows.
EARLIER: dict[str, Any] = {
    "rotary_base": 10_000.0,
    "qk_scale": 1.0,
    "short_window_divisor": 2,
    "short_window_multiple": 1,
    "value_gate_channels": 32,
    "value_gate_range": 2.0,
    "smear": False,
    "backout": False,
}
