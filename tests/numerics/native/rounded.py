"""int8 weights by torch: gpt.py with what its matrices take, and they themselves, rounded to 255 numbers a row."""

import copy

import pytest
import torch
from torch import Tensor

from nanochat.model import gpt
from nanochat.model.attention import causal_attention
from nanochat.model.gpt import GPT


def int8_logits(model: GPT, token_ids: Tensor) -> Tensor:
    """What the kernels' int8 form has to compute: token_ids (B, T) -> logits (B, T, V).

    Keys and values are of bfloat16; gates and embeddings stay as they are.
    """
    model = copy.deepcopy(model)
    matrices = [
        matrix
        for block in model.blocks
        for matrix in (*(getattr(block.attention, name) for name in ("query", "key", "value", "out")), block.mlp.up)
    ] + [block.mlp.down for block in model.blocks]
    for matrix in (*matrices, model.head):
        matrix.weight.data = rounded(matrix.weight.data)
    for matrix in matrices:
        matrix.register_forward_pre_hook(lambda _, inputs: (rounded(inputs[0]),))

    def attend(q: Tensor, k: Tensor, v: Tensor, window: int, scale: float) -> Tensor:
        return causal_attention(q, k.bfloat16().float(), v.bfloat16().float(), window, scale)

    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr(gpt, "causal_attention", attend)
        patch.setattr(model, "_logits", lambda x: GPT._logits(model, rounded(x)))
        return model(token_ids)


def rounded(x: Tensor) -> Tensor:
    """Each row to whole numbers up to 127 times a scale of its own."""
    scale = x.abs().amax(dim=-1, keepdim=True) / 127
    scale[scale == 0] = 1
    return (x / scale).round() * scale
