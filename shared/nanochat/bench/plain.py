"""The same model in plain PyTorch, for one case: n samples of one prompt, decoded together. Something to compare with.

A stand-in, written from the description of how karpathy/nanochat generates, for that project has no package to install:
float32 modules run eagerly, one prefill whose keys and values are copied to all rows, one position for all of them,
scaled_dot_product_attention over the cache, softmax and multinomial. None of its code is here, and its own speed may be
another.
"""

import random
import time
from collections.abc import Sequence
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat.bench.timing import Case, Timing
from nanochat.model.elementwise import rms_norm
from nanochat.model.gpt import GPT, Attention
from nanochat.model.rotary import apply_rotary
from nanochat.tokenizer.special import SPECIAL_TOKENS


class PlainDecoder:
    """Rows at one position. keys, values: (L, B, S, Hk, D)."""

    def __init__(self, model: GPT, max_len: int) -> None:
        self.model, self.max_len = model, max_len
        self._position = 0
        self._previous = torch.empty(0)  # (B, 1, C): the embedding of the token before, for the smear
        self._keys = self._values = torch.empty(0)

    @torch.inference_mode()
    def generate(self, prompt: list[int], num_rows: int, num_new: int, temperature: float) -> Tensor:
        """(B, num_new) token ids."""
        config = self.model.config
        shape = (config.n_layer, 1, self.max_len, config.n_kv_head, config.head_dim)
        self._keys, self._values = torch.zeros(shape), torch.zeros(shape)
        self._position, self._previous = 0, torch.zeros(1, 1, config.n_embd)
        logits = self._forward(torch.tensor([prompt])).expand(num_rows, -1)  # (1, V) -> (B, V)
        self._keys, self._values = (t.repeat(1, num_rows, 1, 1, 1) for t in (self._keys, self._values))
        self._previous = self._previous.repeat(num_rows, 1, 1)
        drawn = [_sample(logits, temperature)]
        while len(drawn) < num_new:
            drawn.append(_sample(self._forward(drawn[-1]), temperature))
        return torch.cat(drawn, dim=1)

    def _forward(self, token_ids: Tensor) -> Tensor:
        """Logits (B, V) after the last of token_ids (B, T)."""
        model, config = self.model, self.model.config
        T = token_ids.size(1)
        rotation = model.cos[self._position : self._position + T], model.sin[self._position : self._position + T]
        x0 = model.embed_tokens(token_ids)
        before = torch.cat([self._previous, x0[:, :-1]], dim=1)
        self._previous = x0[:, -1:]
        x0 = model._smear(x0, before)
        x, middle = x0, x0
        for i, block in enumerate(model.blocks):
            x = model.resid_lambdas[i] * x + model.x0_lambdas[i] * x0
            x = x + self._attention(block.attention, rms_norm(x), token_ids, rotation)
            x = x + block.mlp(rms_norm(x))
            if i == config.n_layer // 2:
                middle = x
        if model.backout_lambda is not None:
            x = x - model.backout_lambda * middle
        self._position += T
        return model._logits(rms_norm(x[:, -1]))

    def _attention(self, layer: Attention, h: Tensor, token_ids: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        B, T, _ = h.shape
        start, end = self._position, self._position + T
        q, k, v = (part(h).view(B, T, -1, layer.head_dim) for part in (layer.query, layer.key, layer.value))
        if layer.value_gate is not None and layer.value_embedding is not None:
            gate = layer.gate_range * torch.sigmoid(layer.value_gate(h[..., : layer.gate_channels]))
            v = v + gate[..., None] * layer.value_embedding(token_ids).view_as(v)
        q, k = rms_norm(apply_rotary(q, *rotation)), rms_norm(apply_rotary(k, *rotation))
        self._keys[layer.layer, :, start:end], self._values[layer.layer, :, start:end] = k, v
        first = max(0, end - layer.window - 1) if T == 1 else 0
        keys, values = self._keys[layer.layer, :, first:end], self._values[layer.layer, :, first:end]
        # (B, T, H, D) -> (B, H, T, D). The prompt is shorter than any window: plain causal attention.
        y = F.scaled_dot_product_attention(
            q.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), is_causal=T > 1, scale=layer.scale
        )
        out: Tensor = layer.out(y.transpose(1, 2).reshape(B, T, -1))
        return out


def _sample(logits: Tensor, temperature: float) -> Tensor:
    """(B, V) -> (B, 1)."""
    if temperature == 0:
        return logits.argmax(dim=-1, keepdim=True)
    return torch.multinomial(F.softmax(logits / temperature, dim=-1), 1)


def measure_plain(model: GPT, num_rows: Sequence[int], case: Case, num_rounds: int) -> list[Timing]:
    """As decoding.measure does. A prompt that reaches beyond a window is not for this."""
    assert case.is_shared and case.prompt_tokens <= min(model.config.windows), "one prompt, shorter than any window"
    decoder, dice = PlainDecoder(model, case.prompt_tokens + case.new_tokens), random.Random(1)

    def seconds(count: int, num_new: int) -> float:
        prompt = dice.choices(range(model.config.vocab_size - len(SPECIAL_TOKENS)), k=case.prompt_tokens)
        start = time.perf_counter()
        decoder.generate(prompt, count, num_new, case.temperature)
        return time.perf_counter() - start

    rounds = [[(seconds(n, 1), seconds(n, case.new_tokens)) for n in num_rows] for _ in range(1 + num_rounds)][1:]
    return [
        Timing(num_streams=n, prefill_s=median(r[i][0] for r in rounds), total_s=median(r[i][1] for r in rounds))
        for i, n in enumerate(num_rows)
    ]
