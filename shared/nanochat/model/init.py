"""First weights of a model, exactly as its training recipe was tuned for. Loading saved ones is names.py's."""

import math

import torch
from torch import Tensor

from nanochat.model.gpt import GPT

EMBEDDING_STD = 0.8
HEAD_STD = 0.001
MLP_UP_FACTOR = 0.4
GATE_MAX = 0.02
RESID_LAMBDAS = (1.15, 1.05)  # first layer, last layer
X0_LAMBDAS = (0.20, 0.05)
BACKOUT_LAMBDA = 0.2


@torch.no_grad()
def init_weights(model: GPT, generator: torch.Generator) -> None:
    """Overwrite every parameter. Draws on the generator's device, in float32: a CPU seed means the same everywhere."""

    def normal(weight: Tensor, std: float) -> None:
        weight.copy_(torch.randn(weight.shape, generator=generator, device=generator.device) * std)

    def uniform(weight: Tensor, low: float, high: float) -> None:
        drawn = torch.rand(weight.shape, generator=generator, device=generator.device)
        weight.copy_(drawn * (high - low) + low)

    config = model.config
    bound = math.sqrt(3 / config.n_embd)  # a uniform draw of this bound has std 1 / sqrt(C)
    normal(model.embedding.weight, EMBEDDING_STD)
    normal(model.head.weight, HEAD_STD)
    for block in model.blocks:
        attention, mlp = block.attention, block.mlp
        for linear in (attention.query, attention.key, attention.value):
            uniform(linear.weight, -bound, bound)
        attention.out.weight.zero_()  # both ways back to the residual stream begin as nothing
        mlp.down.weight.zero_()
        uniform(mlp.up.weight, -MLP_UP_FACTOR * bound, MLP_UP_FACTOR * bound)
        if attention.value_gate is not None and attention.value_embedding is not None:
            uniform(attention.value_gate.weight, 0.0, GATE_MAX)
            uniform(attention.value_embedding.weight, -bound, bound)
    model.resid_lambdas.copy_(torch.linspace(*RESID_LAMBDAS, config.n_layer))
    model.x0_lambdas.copy_(torch.linspace(*X0_LAMBDAS, config.n_layer))
    if model.smear_gate is not None and model.smear_lambda is not None:
        uniform(model.smear_gate.weight, 0.0, GATE_MAX)
        model.smear_lambda.zero_()
    if model.backout_lambda is not None:
        model.backout_lambda.fill_(BACKOUT_LAMBDA)
