"""What a step of the model cannot do without, by the model's sizes: bytes to read and products to make, torch-free.

Activations, norms, embeddings of single tokens and sampling are left out: they are small beside the matrices. A share
of a peak that is computed from this is therefore a little too low, never too high.
"""

from dataclasses import dataclass
from typing import Literal

from nanochat.config import GPTConfig

Weights = Literal["fp32", "int8"]
BYTES_A_WEIGHT: dict[str, int] = {"fp32": 4, "int8": 1}
_BYTES_A_CACHED_NUMBER: dict[str, int] = {"fp32": 4, "int8": 2}  # keys and values: bfloat16 beside int8


@dataclass(frozen=True, kw_only=True)
class Work:
    """Of one model. layer_weights and head_weights are the numbers in matrices that every token meets."""

    config: GPTConfig
    weights: Weights

    @property
    def layer_weights(self) -> int:
        """Query and out (C x C), key and value (C x Hk D), up and down (C x 4 C), in every layer."""
        c = self.config
        kv_width = c.n_kv_head * c.head_dim
        return c.n_layer * (2 * c.n_embd**2 + 2 * c.n_embd * kv_width + 8 * c.n_embd**2)

    @property
    def head_weights(self) -> int:
        return self.config.n_embd * self.config.vocab_size

    def _visible(self, context: float) -> float:
        """Keys that one query sees, summed over layers."""
        return sum(min(window, context) for window in self.config.windows)

    def step_bytes(self, num_rows: int, context: float) -> float:
        """Read by a step that gives each row a token: every matrix once, and each row's keys and values."""
        matrices = (self.layer_weights + self.head_weights) * BYTES_A_WEIGHT[self.weights]
        kv_width = self.config.n_kv_head * self.config.head_dim
        return matrices + num_rows * self._visible(context) * 2 * kv_width * _BYTES_A_CACHED_NUMBER[self.weights]

    def step_flops(self, num_rows: int, context: float) -> float:
        """Of the same step: two for each weight and row, four for each visible key and channel."""
        products = 2 * (self.layer_weights + self.head_weights)
        return num_rows * (products + 4 * self.config.n_embd * self._visible(context))

    def prefill_flops(self, num_rows: int, num_tokens: int) -> float:
        """Of prompts on their way in. Only the last token's logits are needed; a query sees half of them on average."""
        attention = 4 * self.config.n_embd * self._visible(num_tokens / 2)
        return num_rows * (num_tokens * (2 * self.layer_weights + attention) + 2 * self.head_weights)
