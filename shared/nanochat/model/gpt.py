"""The model: embedding, smear, blocks of attention and MLP, backout, head; for training and for cached decoding.

Sizes and constants come from config.py, first weights from init.py, stored names from names.py. Knows nothing of the
optimizer, sampling or files.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanochat.config import GPTConfig
from nanochat.errors import ContextTooLong
from nanochat.model.attention import causal_attention
from nanochat.model.decode_step import DecodeStep
from nanochat.model.elementwise import rms_norm, squared_relu
from nanochat.model.kv_cache import KVCache
from nanochat.model.loss import HeadLoss, softcap
from nanochat.model.precision import embedding_dtype
from nanochat.model.product import linear
from nanochat.model.ragged import RaggedStep
from nanochat.model.rotary import apply_rotary, rotary_table
from nanochat.sizes import flops_per_token

# How rows continue a cache: of any length, or a token each.
CachedStep = RaggedStep | DecodeStep


class Linear(nn.Module):
    """No bias, float32 weights (out, in) left empty for init.py or names.py to fill, a product in the input's dtype."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.float8: Callable[[Tensor], Tensor] | None = None  # the same while training (float8.py)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out)"""
        if self.float8 is not None and self.training:
            return self.float8(x)
        return linear(x, self.weight.to(x.dtype))


class Embedding(nn.Module):
    """A table (V, width), left empty likewise. It lives in a narrower dtype where the compute dtype allows."""

    def __init__(self, vocab_size: int, width: int, compute_dtype: torch.dtype) -> None:
        super().__init__()
        self.compute_dtype = compute_dtype
        self.weight = nn.Parameter(torch.empty(vocab_size, width, dtype=embedding_dtype(compute_dtype)))

    def forward(self, token_ids: Tensor) -> Tensor:
        return F.embedding(token_ids, self.weight).to(self.compute_dtype)


class Rotation(NamedTuple):
    """Rotary tables for the tokens at hand; they broadcast to (B, T, 1, D/2)."""

    cos: Tensor
    sin: Tensor


class Attention(nn.Module):
    """Projections, value embedding, rotary and norm of q and k, and the way back to the residual stream."""

    def __init__(self, config: GPTConfig, layer: int, compute_dtype: torch.dtype) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.window = config.windows[layer]
        self.layer = layer
        # The factor on both q and k is taken on their product instead: once, and at no cost.
        self.scale = config.qk_scale**2 / math.sqrt(config.head_dim)
        self.gate_channels = config.value_gate_channels
        self.gate_range = config.value_gate_range
        kv_width = config.n_kv_head * config.head_dim
        self.query = Linear(config.n_embd, config.n_embd)
        self.key = Linear(config.n_embd, kv_width)
        self.value = Linear(config.n_embd, kv_width)
        self.out = Linear(config.n_embd, config.n_embd)
        self.value_gate: Linear | None = None
        self.value_embedding: Embedding | None = None
        if config.has_value_embedding(layer):
            self.value_gate = Linear(config.value_gate_channels, config.n_kv_head)
            self.value_embedding = Embedding(config.padded_vocab_size, kv_width, compute_dtype)

    def forward(self, h: Tensor, token_ids: Tensor, rotation: Rotation, step: CachedStep | None) -> Tensor:
        """h (B, T, C), normed -> (B, T, C). Rows begin at position 0, or continue a cache where a step is given."""
        B, T, C = h.shape
        q = self.query(h).view(B, T, -1, self.head_dim)  # (B, T, C) -> (B, T, H, D)
        k = self.key(h).view(B, T, -1, self.head_dim)  # (B, T, C) -> (B, T, Hk, D)
        v = self.value(h).view(B, T, -1, self.head_dim)
        if self.value_gate is not None and self.value_embedding is not None:
            gate = self.gate_range * torch.sigmoid(self.value_gate(h[..., : self.gate_channels]))  # (B, T, Hk)
            v = v + gate[..., None] * self.value_embedding(token_ids).view_as(v)
        q = rms_norm(apply_rotary(q, *rotation))
        k = rms_norm(apply_rotary(k, *rotation))
        if step is None:
            y = causal_attention(q, k, v, self.window, self.scale)
        else:
            step.store(self.layer, k, v)
            if step.is_fresh:
                y = causal_attention(q, k, v, self.window, self.scale)
            else:
                y = step.attend(self.layer, q, self.window, self.scale)
        out: Tensor = self.out(y.reshape(B, T, C))
        return out


class MLP(nn.Module):
    """C -> 4C -> C with a squared ReLU between."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.up = Linear(config.n_embd, 4 * config.n_embd)
        self.down = Linear(4 * config.n_embd, config.n_embd)

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = self.down(squared_relu(self.up(h)))
        return out


class Block(nn.Module):
    """One layer. Both parts read a normed x and add to it."""

    def __init__(self, config: GPTConfig, layer: int, compute_dtype: torch.dtype) -> None:
        super().__init__()
        self.attention = Attention(config, layer, compute_dtype)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, token_ids: Tensor, rotation: Rotation, step: CachedStep | None) -> Tensor:
        x = x + self.attention(rms_norm(x), token_ids, rotation, step)
        y: Tensor = x + self.mlp(rms_norm(x))
        return y


class GPT(nn.Module):
    """The whole model. Matrix products run in compute_dtype; weights are empty until init_weights or load_tensors."""

    cos: Tensor  # (sequence_len, 1, D/2): the middle dimension broadcasts over heads
    sin: Tensor

    def __init__(self, config: GPTConfig, compute_dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = compute_dtype
        V, L = config.padded_vocab_size, config.n_layer
        self.embedding = Embedding(V, config.n_embd, compute_dtype)
        self.layers = nn.ModuleList(Block(config, layer, compute_dtype) for layer in range(L))
        self.head = Linear(config.n_embd, V)
        self.loss = HeadLoss(config.softcap)
        self.resid_lambdas = nn.Parameter(torch.ones(L))
        self.x0_lambdas = nn.Parameter(torch.zeros(L))
        self.smear_gate = Linear(config.smear_channels, 1) if config.smear else None
        self.smear_lambda = nn.Parameter(torch.zeros(1)) if config.smear else None
        self.backout_lambda = nn.Parameter(torch.zeros(1)) if config.backout else None
        cos, sin = rotary_table(config.sequence_len, config.head_dim, config.rotary_base)
        self.register_buffer("cos", cos[:, None].to(self.device), persistent=False)
        self.register_buffer("sin", sin[:, None].to(self.device), persistent=False)

    @property
    def blocks(self) -> list[Block]:
        return cast(list[Block], list(self.layers))

    @property
    def device(self) -> torch.device:
        return self.embedding.weight.device

    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def num_flops_per_token(self) -> int:
        """Forward and backward at full context (sizes.py)."""
        return flops_per_token(self.config)

    def forward(self, token_ids: Tensor, targets: Tensor | None = None, reduction: str = "mean") -> Tensor:
        """Rows from position 0: token_ids (B, T) -> logits (B, T, V) float32, or the loss given targets (B, T).

        Targets of -1 do not count. reduction: "mean" over counted targets (0 if none), "sum", or "none" -> (B, T) with
        0 where not counted. Raises ContextTooLong over sequence_len tokens a row.
        """
        T, limit = token_ids.size(1), self.config.sequence_len
        if token_ids.size(1) > limit:
            raise ContextTooLong(f"rows have {T} tokens; the model takes {limit}. Shorten them.")
        e = self.embed_tokens(token_ids)
        previous = F.pad(e[:, :-1], (0, 0, 1, 0)) if self.smear_gate is not None else e
        x = self._run_blocks(token_ids, self._smear(e, previous), Rotation(self.cos[:T], self.sin[:T]), None)
        if targets is None:
            return self._logits(x)
        loss: Tensor = self.loss(x, self._head_weight(), targets, reduction)
        return loss

    @torch.inference_mode()
    def forward_cached(
        self,
        token_ids: Tensor,
        cache: KVCache,
        slots: Tensor,
        num_new: Tensor,
        num_wanted: Tensor | None = None,
    ) -> Tensor:
        """Continue slot slots[b] with the first num_new[b] tokens of row b; rows are padded on the right.

        token_ids (B, T), slots and num_new (B,) int64 (cheapest on the CPU), slots distinct. Gives the logits (B, V)
        float32 after each row's last new token, or, of num_wanted (B,) last ones each, (sum, V), row after row. Raises
        ContextTooLong, before anything is stored, where a slot would grow past the cache's max_len.
        """
        step = RaggedStep(cache, slots, num_new, token_ids.size(1), token_ids.device)
        x = self._run_step(token_ids, step)
        step.finish()
        return self._logits(step.last(x) if num_wanted is None else step.ends(x, num_wanted))

    @torch.inference_mode()
    def decode(self, token_ids: Tensor, step: DecodeStep) -> Tensor:
        """One token a row, token_ids (B, 1) -> logits (B, V) float32. The cache's lengths are the caller's to count."""
        return self._logits(step.last(self._run_step(token_ids, step)))

    def _run_step(self, token_ids: Tensor, step: CachedStep) -> Tensor:
        e = self.embed_tokens(token_ids)
        previous = step.shift_embeddings(e)
        rotation = Rotation(self.cos[step.positions], self.sin[step.positions])
        return self._run_blocks(token_ids, self._smear(e, previous), rotation, step)

    def embed_tokens(self, token_ids: Tensor) -> Tensor:
        """Normed embeddings before smear, (B, T) -> (B, T, C) in the compute dtype."""
        return rms_norm(self.embedding(token_ids))

    def _smear(self, e: Tensor, previous: Tensor) -> Tensor:
        """Mix a part of the previous token's embedding into each; previous (B, T, C) is zero where there is none."""
        if self.smear_gate is None or self.smear_lambda is None:
            return e
        gate = torch.sigmoid(self.smear_gate(e[..., : self.config.smear_channels]))
        return e + self.smear_lambda.to(e.dtype) * gate * previous

    def _run_blocks(self, token_ids: Tensor, x0: Tensor, rotation: Rotation, step: CachedStep | None) -> Tensor:
        x, middle = x0, x0
        for i, block in enumerate(self.blocks):
            x = self.resid_lambdas[i] * x + self.x0_lambdas[i] * x0
            x = block(x, token_ids, rotation, step)
            if i == self.config.n_layer // 2:
                middle = x
        if self.backout_lambda is not None:
            x = x - self.backout_lambda.to(x.dtype) * middle
        return rms_norm(x)

    def _logits(self, x: Tensor) -> Tensor:
        """Softcapped, in float32, without the padding of the vocabulary: (..., C) -> (..., V)."""
        return softcap(F.linear(x, self._head_weight().to(x.dtype)), self.config.softcap)

    def _head_weight(self) -> Tensor:
        """Without the padding of the vocabulary; where there is none the parameter itself, whose gradient is then not
        copied into a larger one."""
        weight, vocab_size = self.head.weight, self.config.vocab_size
        return weight if weight.size(0) == vocab_size else weight[:vocab_size]
