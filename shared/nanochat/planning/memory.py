"""What one rank holds while it trains: weights, gradients, its share of the optimizer's state, activations.

The first three are exact. Activations are what autograd keeps for the backward pass when the model runs as it is
written, attention fused; compiled, it keeps less. Left out: the device's own context, communication buffers, and what
the allocator loses to fragments.
"""

import math
from collections import Counter
from dataclasses import dataclass

from nanochat.config import GPTConfig
from nanochat.sizes import LOGITS_AT_ONCE, Shape, parameter_shapes, parameters_by_group

# Below this, every rank keeps an AdamW parameter's whole state: splitting it would cost more than it saves.
MIN_SHARDED_ELEMENTS = 1024
_FLOAT32 = 4
# Of a chunk of logits in float32, at most: themselves, what becomes of them, and their gradient. CPUs reuse the place.
_CHUNK_COPIES = 3


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes a rank."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations


def estimate_memory(config: GPTConfig, *, num_tokens: int, num_ranks: int = 1, compute_bytes: int = 2) -> Memory:
    """num_tokens: those that a rank computes at once. compute_bytes: 2 for bfloat16 and FP8, 4 for float32."""
    weights = weight_bytes(config, compute_bytes)
    return Memory(
        weights=weights,
        gradients=weights,  # of the same shapes and dtypes
        optimizer=optimizer_bytes(config, num_ranks),
        activations=activation_bytes(config, num_tokens, compute_bytes),
    )


def weight_bytes(config: GPTConfig, compute_bytes: int) -> int:
    """Master weights are float32; embeddings live in the compute dtype."""
    groups = parameters_by_group(config)
    embeddings = groups["embedding"] + groups["value_embeddings"]
    return embeddings * compute_bytes + (sum(groups.values()) - embeddings) * _FLOAT32


def optimizer_bytes(config: GPTConfig, num_ranks: int = 1) -> int:
    """The largest share that a rank has of the moments, all float32.

    AdamW: two a weight, split along dim 0. Muon: a momentum buffer and a row or column of variances a matrix, whole
    matrices of one shape dealt out to the ranks.
    """
    elements = 0
    groups = parameter_shapes(config)
    for group, shapes in groups.items():
        if group != "matrices":
            elements += sum(2 * _sharded(shape, num_ranks) for shape in shapes.values())
    for (rows, cols), count in Counter(groups["matrices"].values()).items():
        elements += math.ceil(count / num_ranks) * (rows * cols + max(rows, cols))
    return elements * _FLOAT32


def activation_bytes(config: GPTConfig, num_tokens: int, compute_bytes: int) -> int:
    """What the backward pass of num_tokens tokens needs, and the copies of weights that products were computed with."""
    C, L, kv_width = config.n_embd, config.n_layer, config.n_kv_head * config.head_dim
    # A layer: the residual stream before its mix with x0 (C), two normed inputs (2 C), queries, keys and values as
    # attention reads them (C + 2 kv), its output (C), the mlp's squared ReLU (4 C).
    values = L * (9 * C + 2 * kv_width)
    # A gated value embedding, before its gate.
    values += kv_width * sum(config.has_value_embedding(layer) for layer in range(L))
    # Around the layers: the embedding's norm, x0, the final norm.
    values += 3 * C
    casts = 0
    if compute_bytes != _FLOAT32:
        groups = parameters_by_group(config)
        casts = (groups["matrices"] + groups["head"]) * compute_bytes
    return num_tokens * values * compute_bytes + casts + loss_bytes(config, num_tokens, compute_bytes)


def loss_bytes(config: GPTConfig, num_tokens: int, compute_bytes: int) -> int:
    """The loss computes its gradients with itself, those of its input and of the head, a chunk of logits at a time."""
    gradients = (num_tokens * compute_bytes + config.vocab_size * _FLOAT32) * config.n_embd if num_tokens else 0
    return gradients + chunk_bytes(config, num_tokens)


def chunk_bytes(config: GPTConfig, num_tokens: int) -> int:
    return _CHUNK_COPIES * min(num_tokens * config.vocab_size, LOGITS_AT_ONCE) * _FLOAT32


def _sharded(shape: Shape, num_ranks: int) -> int:
    """Elements of a rank's part."""
    size = math.prod(shape)
    if size < MIN_SHARDED_ELEMENTS:
        return size
    return math.ceil(shape[0] / num_ranks) * size // shape[0]
