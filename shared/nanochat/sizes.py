"""How large a model of given sizes is, and what a token costs it: arithmetic on GPTConfig, torch-free.

The tensors are listed once, here; gpt.py makes them, and a test holds the two together.
"""

import math
from typing import Literal

from nanochat.config import GPTConfig

# As the optimizer tells them apart (optim/groups.py), the small ones together.
ParameterGroup = Literal["embedding", "value_embeddings", "head", "matrices", "scalars"]
Shape = tuple[int, ...]

# Float32 logits that the loss computes at once: 48 MiB, of a vocabulary of 2^15 384 tokens', which are whole tiles of a
# GPU's products too. Fewer make those for the head's gradient thin.
LOGITS_AT_ONCE = 3 * 2**22


def parameter_shapes(config: GPTConfig) -> dict[ParameterGroup, dict[str, Shape]]:
    """The shape of every parameter by its stored name, matrices as (out, in)."""
    V, C, L = config.padded_vocab_size, config.n_embd, config.n_layer
    kv_width = config.n_kv_head * config.head_dim
    tables: dict[str, Shape] = {}
    matrices: dict[str, Shape] = {}
    for i in range(L):
        matrices[f"layer.{i}.query"] = (C, C)
        matrices[f"layer.{i}.key"] = (kv_width, C)
        matrices[f"layer.{i}.value"] = (kv_width, C)
        matrices[f"layer.{i}.attention_out"] = (C, C)
        matrices[f"layer.{i}.mlp_up"] = (4 * C, C)
        matrices[f"layer.{i}.mlp_down"] = (C, 4 * C)
        if config.has_value_embedding(i):
            matrices[f"layer.{i}.value_gate"] = (config.n_kv_head, config.value_gate_channels)
            tables[f"layer.{i}.value_embedding"] = (V, kv_width)
    scalars: dict[str, Shape] = {"resid_lambdas": (L,), "x0_lambdas": (L,)}
    if config.smear:
        scalars |= {"smear_gate": (1, config.smear_channels), "smear_lambda": (1,)}
    if config.backout:
        scalars["backout_lambda"] = (1,)
    return {
        "embedding": {"embedding": (V, C)},
        "value_embeddings": tables,
        "head": {"head": (V, C)},
        "matrices": matrices,
        "scalars": scalars,
    }


def parameters_by_group(config: GPTConfig) -> dict[ParameterGroup, int]:
    groups = parameter_shapes(config)
    return {group: sum(map(math.prod, shapes.values())) for group, shapes in groups.items()}


def num_parameters(config: GPTConfig) -> int:
    """All weights, as GPT(config).num_parameters() counts them."""
    return sum(parameters_by_group(config).values())


def scaling_parameters(config: GPTConfig) -> int:
    """P: the weights that the number of training tokens is counted from, block matrices and head."""
    groups = parameters_by_group(config)
    return groups["matrices"] + groups["head"]


def flops_per_token(config: GPTConfig) -> int:
    """Forward and backward at full context: 6 a weight of a linear map, 12 C a key that a query sees."""
    linear = scaling_parameters(config) + (config.smear_channels if config.smear else 0)
    return 6 * linear + sum(12 * config.n_embd * min(window, config.sequence_len) for window in config.windows)
