"""A random model that is sure of every next token, so that rounding decides nothing and texts can be compared."""

import torch

from nanochat.config import GPTConfig
from nanochat.model.gpt import GPT


def decisive_model(config: GPTConfig, *, seed: int) -> GPT:
    """Every part is active, with weights so large that the likeliest token is far ahead of the next."""
    model = GPT(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = parameter.shape[-1] ** -0.5 if parameter.dim() == 2 else 0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
        model.embedding.weight.mul_(8)
        model.head.weight.mul_(4)
    return model.requires_grad_(False).eval()
