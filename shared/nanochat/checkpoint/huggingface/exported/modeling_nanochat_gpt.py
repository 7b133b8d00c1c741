"""nanochat's GPT for transformers, in one file that needs nothing of nanochat: it is copied into exported folders.

    AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)       # transformers 5 and newer

Sizes and constants are those of config.json; weights have the names of nanochat's checkpoints. B batch, T new tokens,
S tokens seen, H and Hk heads of queries and keys, D their width, C the model's, V vocabulary.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast


class NanochatGPTConfig(PreTrainedConfig):
    """windows: keys that a query sees to its left, a layer each. value_embedding_layers: which layers have one."""

    model_type = "nanochat_gpt"
    keys_to_ignore_at_inference = ("cache", "past_key_values")
    attribute_map = {  # noqa: RUF012  transformers' way
        "hidden_size": "n_embd",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "num_key_value_heads": "n_kv_head",
        "max_position_embeddings": "sequence_len",
    }

    sequence_len: int = 2048
    vocab_size: int = 32768
    n_layer: int = 12
    n_head: int = 6
    n_kv_head: int = 6
    n_embd: int = 768
    windows: list[int] | None = None
    value_embedding_layers: list[int] | None = None
    rotary_base: float = 100_000.0
    qk_scale: float = 1.2
    value_gate_channels: int = 12
    value_gate_range: float = 3.0
    smear: bool = True
    smear_channels: int = 24
    backout: bool = True
    softcap: float = 15.0
    use_cache: bool = True
    tie_word_embeddings: bool = False


# What this version of transformers calls a cache.
_CACHE = "cache" if hasattr(CausalLMOutputWithPast, "cache") else "past_key_values"


def rms_norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.size(-1),))


class Attention(nn.Module):
    def __init__(self, config: NanochatGPTConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.n_embd // config.n_head
        self.window = config.windows[layer] if config.windows else config.sequence_len
        self.scale = config.qk_scale**2 / self.head_dim**0.5
        self.gate_channels, self.gate_range = config.value_gate_channels, config.value_gate_range
        kv_width = config.n_kv_head * self.head_dim
        self.query = nn.Linear(config.n_embd, config.n_embd, bias=False)
        self.key = nn.Linear(config.n_embd, kv_width, bias=False)
        self.value = nn.Linear(config.n_embd, kv_width, bias=False)
        self.attention_out = nn.Linear(config.n_embd, config.n_embd, bias=False)
        self.value_gate: nn.Linear | None = None
        self.value_embedding: nn.Embedding | None = None
        if layer in (config.value_embedding_layers or ()):
            self.value_gate = nn.Linear(config.value_gate_channels, config.n_kv_head, bias=False)
            self.value_embedding = nn.Embedding(config.vocab_size, kv_width)

    def forward(self, h: Tensor, token_ids: Tensor, cos: Tensor, sin: Tensor, seen: Tensor, cache: Any) -> Tensor:
        """h (B, T, C); cos and sin (B, 1, T, D/2); seen (B, 1, T, S) says which keys padding and time leave."""
        B, T, C = h.shape
        q, k, v = (part(h).view(B, T, -1, self.head_dim) for part in (self.query, self.key, self.value))
        if self.value_gate is not None and self.value_embedding is not None:
            gate = self.gate_range * torch.sigmoid(self.value_gate(h[..., : self.gate_channels]))  # (B, T, Hk)
            v = v + gate[..., None] * self.value_embedding(token_ids).view_as(v)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, T, H, D) -> (B, H, T, D)
        q, k = rms_norm(_rotated(q, cos, sin)), rms_norm(_rotated(k, cos, sin))
        if cache is not None:
            k, v = cache.update(k, v, self.layer)
        S, group = k.size(2), q.size(1) // k.size(1)
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        keys = torch.arange(S, device=h.device)
        distance = keys[S - T :, None] - keys  # (T, S)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen & (distance <= self.window), scale=self.scale)
        out: Tensor = self.attention_out(y.transpose(1, 2).reshape(B, T, C))
        return out


class Block(Attention):
    """Attention and MLP of a layer; one module, so that weights are called layer.0.query, layer.0.mlp_up, ..."""

    def __init__(self, config: NanochatGPTConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.mlp_up = nn.Linear(config.n_embd, 4 * config.n_embd, bias=False)
        self.mlp_down = nn.Linear(4 * config.n_embd, config.n_embd, bias=False)

    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        x = x + super().forward(rms_norm(x), *rest)
        y: Tensor = x + self.mlp_down(F.relu(self.mlp_up(rms_norm(x))).square())
        return y


class NanochatGPTForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = NanochatGPTConfig
    base_model_prefix = ""
    _no_split_modules = ("Block",)
    _supports_sdpa = True

    def __init__(self, config: NanochatGPTConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.layer = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.resid_lambdas = nn.Parameter(torch.ones(config.n_layer))
        self.x0_lambdas = nn.Parameter(torch.zeros(config.n_layer))
        if config.smear:
            self.smear_gate = nn.Linear(config.smear_channels, 1, bias=False)
            self.smear_lambda = nn.Parameter(torch.zeros(1))
        if config.backout:
            self.backout_lambda = nn.Parameter(torch.zeros(1))
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embedding = value

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        self.head = new_embeddings

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Any = None,
        previous_ids: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Logits (B, T, V) float32 after input_ids (B, T), which continue what the cache holds, S - T tokens.

        attention_mask (B, S): 0 for padding, on either side. previous_ids (B, 1): the tokens before input_ids, which
        smear needs beside a cache that is not empty; generate() gives them. labels (B, T): -100 does not count.
        past_key_values is what older versions of transformers call the cache.
        """
        cache = past_key_values if cache is None else cache
        B, T = input_ids.shape
        if cache is None and (self.config.use_cache if use_cache is None else use_cache) and not self.training:
            cache = DynamicCache(config=self.config)
        num_before = 0 if cache is None else int(cache.get_seq_length())
        if num_before and self.config.smear and previous_ids is None:
            raise ValueError("previous_ids is missing: with a cache, smear needs the token before input_ids.")
        S = num_before + T
        present = torch.ones(B, S, dtype=torch.bool, device=input_ids.device)
        if attention_mask is not None:
            present = attention_mask[:, :S].to(torch.bool)
        if position_ids is None:
            position_ids = (present.cumsum(-1) - 1).clamp(min=0)[:, num_before:]
        e = rms_norm(self.embedding(input_ids))
        x = self._smear(e, previous_ids, present, num_before)
        x = self._run(x, input_ids, position_ids, present, cache)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        cap = self.config.softcap
        logits = cap * torch.tanh(self.head(x[:, kept]).float() / cap)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        return CausalLMOutputWithPast(loss=loss, logits=logits, **{_CACHE: cache})

    def prepare_inputs_for_generation(self, input_ids: Tensor, *args: Any, **kwargs: Any) -> dict[str, Any]:
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(input_ids, *args, **kwargs)
        T = inputs["input_ids"].size(1)
        if input_ids.size(1) > T:
            inputs["previous_ids"] = input_ids[:, -T - 1 : -T]
        return inputs

    def _smear(self, e: Tensor, previous_ids: Tensor | None, present: Tensor, num_before: int) -> Tensor:
        """Mix a part of the embedding before into each (B, T, C); before a row's first token there is none."""
        if not self.config.smear:
            return e
        first = torch.zeros_like(e[:, :1]) if previous_ids is None else rms_norm(self.embedding(previous_ids[:, -1:]))
        before = torch.cat((first, e[:, :-1]), dim=1)
        is_there = F.pad(present, (1, 0))[:, num_before:-1, None]  # (B, T, 1): the token before is no padding
        gate = torch.sigmoid(self.smear_gate(e[..., : self.config.smear_channels]))
        return e + self.smear_lambda * gate * before * is_there

    def _run(self, x: Tensor, token_ids: Tensor, position_ids: Tensor, present: Tensor, cache: Any) -> Tensor:
        T, S = x.size(1), present.size(1)
        seen = torch.ones(T, S, dtype=torch.bool, device=x.device).tril(S - T) & present[:, None, None, :]
        # Padding sees itself, or its softmax would be over nothing.
        seen = seen | torch.eye(S, dtype=torch.bool, device=x.device)[S - T :]
        cos, sin = self._rotation(position_ids)
        x0, middle = x, x
        for i, block in enumerate(self.layer):
            x = self.resid_lambdas[i] * x + self.x0_lambdas[i] * x0
            x = block(x, token_ids, cos, sin, seen, cache)
            if i == self.config.n_layer // 2:
                middle = x
        if self.config.backout:
            x = x - self.backout_lambda * middle
        return rms_norm(x)

    def _rotation(self, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines (B, 1, T, D/2) float32 of positions (B, T)."""
        D = self.config.n_embd // self.config.n_head
        channels = torch.arange(0, D, 2, device=position_ids.device, dtype=torch.float32)
        angles = position_ids[:, None, :, None].float() * self.config.rotary_base ** (-channels / D)
        return angles.cos(), angles.sin()


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    x1, x2 = x.chunk(2, dim=-1)
    return torch.cat((x1 * cos + x2 * sin, x2 * cos - x1 * sin), dim=-1).to(x.dtype)
