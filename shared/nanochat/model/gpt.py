"""The model: embedding, smear, blocks of attention and MLP, backout, head; for training and for cached decoding.

Sizes and constants come from config.py, first weights from init.py, stored names from names.py. Knows nothing of the
optimizer, sampling or files.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanochat.config import GPTConfig
from nanochat.errors import ContextTooLong
from nanochat.model.attention import cached_attention, causal_attention
from nanochat.model.kv_cache import KVCache
from nanochat.model.precision import embedding_dtype
from nanochat.model.ragged import RaggedStep
from nanochat.model.rotary import apply_rotary, rotary_table

IGNORE_INDEX = -1


def rms_norm(x: Tensor) -> Tensor:
    """Over the last dimension, without parameters; eps is the dtype's machine epsilon."""
    return F.rms_norm(x, (x.size(-1),))


class Linear(nn.Linear):
    """No bias, float32 weights, and a product in the input's dtype. Weights are left empty: init.py or names.py fills them."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)

    def reset_parameters(self) -> None:
        """Nothing: a draw here would only cost time."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


class Embedding(nn.Embedding):
    """A table whose first content is init.py's or names.py's."""

    def reset_parameters(self) -> None:
        """Nothing: see Linear."""


class Rotation(NamedTuple):
    """Rotary tables for the tokens at hand; they broadcast to (B, T, 1, D/2)."""

    cos: Tensor
    sin: Tensor


class Attention(nn.Module):
    """Projections, value embedding, rotary and norm of q and k, and the way back to the residual stream."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.window = config.windows[layer]
        self.layer = layer
        self.qk_scale = config.qk_scale
        self.gate_channels = config.value_gate_channels
        self.gate_range = config.value_gate_range
        kv_width = config.n_kv_head * config.head_dim
        self.query = Linear(config.n_embd, config.n_embd)
        self.key = Linear(config.n_embd, kv_width)
        self.value = Linear(config.n_embd, kv_width)
        self.out = Linear(config.n_embd, config.n_embd)
        self.value_gate = (
            Linear(config.value_gate_channels, config.n_kv_head) if config.has_value_embedding(layer) else None
        )

    def forward(self, h: Tensor, value_embedding: Tensor | None, rotation: Rotation, step: RaggedStep | None) -> Tensor:
        """h (B, T, C) normed, value_embedding (B, T, Hk * D) or None -> (B, T, C). With a step, rows continue its cache."""
        B, T, C = h.shape
        q = self.query(h).view(B, T, -1, self.head_dim)  # (B, T, C) -> (B, T, H, D)
        k = self.key(h).view(B, T, -1, self.head_dim)  # (B, T, C) -> (B, T, Hk, D)
        v = self.value(h).view(B, T, -1, self.head_dim)
        if value_embedding is not None and self.value_gate is not None:
            gate = self.gate_range * torch.sigmoid(self.value_gate(h[..., : self.gate_channels]))  # (B, T, Hk)
            v = v + gate[..., None] * value_embedding.view_as(v)
        q = rms_norm(apply_rotary(q, *rotation)) * self.qk_scale
        k = rms_norm(apply_rotary(k, *rotation)) * self.qk_scale
        if step is None:
            y = causal_attention(q, k, v, self.window)
        else:
            step.store(self.layer, k, v)
            if step.is_fresh:
                y = causal_attention(q, k, v, self.window)
            else:
                y = cached_attention(q, *step.visible(self.layer, self.window))
        return self.out(y.reshape(B, T, C))


class MLP(nn.Module):
    """C -> 4C -> C with a squared ReLU between."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.up = Linear(config.n_embd, 4 * config.n_embd)
        self.down = Linear(4 * config.n_embd, config.n_embd)

    def forward(self, h: Tensor) -> Tensor:
        return self.down(F.relu(self.up(h)).square())


class Block(nn.Module):
    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.attention = Attention(config, layer)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, value_embedding: Tensor | None, rotation: Rotation, step: RaggedStep | None) -> Tensor:
        x = x + self.attention(rms_norm(x), value_embedding, rotation, step)
        return x + self.mlp(rms_norm(x))


class GPT(nn.Module):
    """The whole model. Matrix products run in compute_dtype; weights are uninitialised until init_weights or load_tensors."""

    def __init__(self, config: GPTConfig, compute_dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = compute_dtype
        table = {"dtype": embedding_dtype(compute_dtype)}
        V, L = config.padded_vocab_size, config.n_layer
        self.embedding = Embedding(V, config.n_embd, **table)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(L))
        self.value_embeddings = nn.ModuleDict(
            {
                str(layer): Embedding(V, config.n_kv_head * config.head_dim, **table)
                for layer in range(L)
                if config.has_value_embedding(layer)
            }
        )
        self.head = Linear(config.n_embd, V)
        self.resid_lambdas = nn.Parameter(torch.ones(L))
        self.x0_lambdas = nn.Parameter(torch.zeros(L))
        self.smear_gate = Linear(config.smear_channels, 1) if config.smear else None
        self.smear_lambda = nn.Parameter(torch.zeros(1)) if config.smear else None
        self.backout_lambda = nn.Parameter(torch.zeros(1)) if config.backout else None
        cos, sin = rotary_table(config.sequence_len, config.head_dim, config.rotary_base)
        self.register_buffer("cos", cos[:, None], persistent=False)  # (T, D/2) -> (T, 1, D/2), to broadcast over heads
        self.register_buffer("sin", sin[:, None], persistent=False)

    @property
    def device(self) -> torch.device:
        return self.embedding.weight.device

    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def num_flops_per_token(self) -> int:
        """Forward and backward at full context: 6 a weight of a linear map, 12 C a key that a query sees."""
        config = self.config
        weights = sum(module.weight.numel() for module in self.modules() if isinstance(module, Linear))
        return 6 * weights + sum(12 * config.n_embd * min(window, config.sequence_len) for window in config.windows)

    def forward(self, token_ids: Tensor, targets: Tensor | None = None, reduction: str = "mean") -> Tensor:
        """Rows from position 0. token_ids (B, T) -> logits (B, T, V) float32, or the loss where targets (B, T) are given.

        Targets of -1 do not count. reduction: "mean" over counted targets (0 if none), "sum", or "none" -> (B, T) with 0
        where not counted. Raises ContextTooLong over sequence_len tokens a row.
        """
        T = token_ids.size(1)
        if T > self.config.sequence_len:
            raise ContextTooLong(f"rows have {T} tokens; the model takes {self.config.sequence_len}. Shorten them.")
        e = self.embed_tokens(token_ids)
        previous = F.pad(e[:, :-1], (0, 0, 1, 0)) if self.smear_gate is not None else e
        x = self._run_blocks(token_ids, self._smear(e, previous), Rotation(self.cos[:T], self.sin[:T]), None)
        logits = self._logits(x)
        return logits if targets is None else _loss(logits, targets, reduction)

    @torch.inference_mode()
    def forward_cached(
        self, token_ids: Tensor, cache: KVCache, slots: Tensor, num_new: Tensor, all_logits: bool = False
    ) -> Tensor:
        """Continue slot slots[b] with the first num_new[b] tokens of row b; rows are padded on the right.

        token_ids (B, T), slots and num_new (B,) int64 (cheapest on the CPU), slots distinct. Gives the logits (B, V)
        float32 after each row's last new token, or all (B, T, V), where what belongs to padding means nothing. Raises
        ContextTooLong, before anything is stored, where a slot would grow past the cache's max_len.
        """
        step = RaggedStep(cache, slots, num_new, token_ids.size(1), token_ids.device)
        e = self.embed_tokens(token_ids)
        previous = step.shift_embeddings(e)
        rotation = Rotation(self.cos[step.positions], self.sin[step.positions])
        x = self._run_blocks(token_ids, self._smear(e, previous), rotation, step)
        step.finish()
        return self._logits(x if all_logits else step.last(x))

    def embed_tokens(self, token_ids: Tensor) -> Tensor:
        """Normed embeddings before smear, (B, T) -> (B, T, C) in the compute dtype."""
        return rms_norm(self.embedding(token_ids).to(self.compute_dtype))

    def _smear(self, e: Tensor, previous: Tensor) -> Tensor:
        """Mix a part of the previous token's embedding into each; previous (B, T, C) is zero where there is none."""
        if self.smear_gate is None or self.smear_lambda is None:
            return e
        gate = torch.sigmoid(self.smear_gate(e[..., : self.config.smear_channels]))
        return e + self.smear_lambda.to(e.dtype) * gate * previous

    def _run_blocks(self, token_ids: Tensor, x0: Tensor, rotation: Rotation, step: RaggedStep | None) -> Tensor:
        x, middle = x0, x0
        for i, layer in enumerate(self.layers):
            x = self.resid_lambdas[i] * x + self.x0_lambdas[i] * x0
            value_embedding = None
            if self.config.has_value_embedding(i):
                value_embedding = self.value_embeddings[str(i)](token_ids).to(self.compute_dtype)
            x = layer(x, value_embedding, rotation, step)
            if i == self.config.n_layer // 2:
                middle = x
        if self.backout_lambda is not None:
            x = x - self.backout_lambda.to(x.dtype) * middle
        return rms_norm(x)

    def _logits(self, x: Tensor) -> Tensor:
        """Softcapped, in float32, without the padding of the vocabulary: (..., C) -> (..., V)."""
        weight = self.head.weight[: self.config.vocab_size].to(x.dtype)
        cap = self.config.softcap
        return cap * torch.tanh(F.linear(x, weight).float() / cap)


def _loss(logits: Tensor, targets: Tensor, reduction: str) -> Tensor:
    assert reduction in ("mean", "sum", "none"), f"unknown reduction {reduction!r}"
    flat = F.cross_entropy(
        logits.flatten(0, 1),
        targets.flatten(),
        ignore_index=IGNORE_INDEX,
        reduction="none" if reduction == "none" else "sum",
    )
    if reduction == "none":
        return flat.view_as(targets)
    return flat if reduction == "sum" else flat / (targets != IGNORE_INDEX).sum().clamp(min=1)
