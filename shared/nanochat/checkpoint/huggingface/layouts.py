"""Two ways in which transformers knows a model of ours: its own NanoChat class, and the class that we export.

NanoChat is the model as it was first published: no value embeddings, smear or backout, nothing done to the residual
stream, the whole context in every layer, q and k as long as their norm makes them. What needs more gets our class,
whose config and names are ours.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nanochat.config import GPTConfig
from nanochat.errors import DataError

NANOCHAT = "nanochat"  # transformers' model_type
OURS = "nanochat_gpt"
# What transformers' class adds to a mean square, float32's epsilon as in our norm; its default is 1e-6.
NORM_EPS = torch.finfo(torch.float32).eps
_MAX_NORM_EPS = 1e-5

# By token: a row for each, and in our models some more that pad the vocabulary.
_TABLES = ("embedding", "head", "value_embedding")
_WHOLE = {"embedding": "model.embed_tokens.weight", "head": "lm_head.weight"}
_PART_OF_LAYER = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "attention_out": "self_attn.o_proj",
    "mlp_up": "mlp.fc1",
    "mlp_down": "mlp.fc2",
}


def is_table(name: str) -> bool:
    """Whether a tensor, by our name, has a row for each token."""
    return name.rpartition(".")[2] in _TABLES


def beyond_nanochat(config: GPTConfig, tensors: Mapping[str, Tensor]) -> list[str]:
    """What of a model transformers' NanoChat class does not compute; empty where it can be exported to it."""
    found = {
        "value embeddings": config.value_embeddings,
        "smear": config.smear and bool(tensors["smear_lambda"].count_nonzero()),
        "backout": config.backout and bool(tensors["backout_lambda"].count_nonzero()),
        "scales on the residual stream": bool((tensors["resid_lambdas"] != 1).any()),
        "the embedding added in every layer": bool(tensors["x0_lambdas"].count_nonzero()),
        "short windows": min(config.windows) < config.sequence_len - 1,
        f"a factor of {config.qk_scale} on q and k": config.qk_scale != 1.0,
    }
    return [part for part, is_there in found.items() if is_there]


def nanochat_config(config: GPTConfig) -> dict[str, Any]:
    """The sizes and constants of config.json for transformers' class."""
    return {
        "architectures": ["NanoChatForCausalLM"],
        "model_type": NANOCHAT,
        "vocab_size": config.vocab_size,
        "hidden_size": config.n_embd,
        "intermediate_size": 4 * config.n_embd,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.n_kv_head,
        "max_position_embeddings": config.sequence_len,
        "hidden_act": "relu2",
        "attention_bias": False,
        "rms_norm_eps": NORM_EPS,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rotary_base},
        "final_logit_softcapping": config.softcap,
        "tie_word_embeddings": False,
    }


def our_config(config: GPTConfig) -> dict[str, Any]:
    """Likewise for the class that we export: ours, with what its file need not compute."""
    return {
        "architectures": ["NanochatGPTForCausalLM"],
        "model_type": OURS,
        "auto_map": {
            "AutoConfig": "modeling_nanochat_gpt.NanochatGPTConfig",
            "AutoModelForCausalLM": "modeling_nanochat_gpt.NanochatGPTForCausalLM",
        },
        **config.to_dict(),
        "windows": list(config.windows),
        "value_embedding_layers": [i for i in range(config.n_layer) if config.has_value_embedding(i)],
        "tie_word_embeddings": False,
    }


def from_nanochat_config(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Values of GPTConfig. Raises DataError naming the key of config.json that no model of ours has so."""
    rope = values.get("rope_parameters") or {}
    width, heads = _number(values, "hidden_size", where), _number(values, "num_attention_heads", where)
    expected = {
        "hidden_act": (values.get("hidden_act", "relu2"), "relu2"),
        "attention_bias": (values.get("attention_bias", False), False),
        "tie_word_embeddings": (values.get("tie_word_embeddings", False), False),
        "intermediate_size": (values.get("intermediate_size"), 4 * width),
        "rope_scaling": (values.get("rope_scaling"), None),
        "rope_parameters.rope_type": (rope.get("rope_type", "default"), "default"),
        "head_dim": (values.get("head_dim", width // max(heads, 1)), width // max(heads, 1)),
    }
    for key, (found, needed) in expected.items():
        if found != needed:
            raise DataError(f"{where} has {key} {found!r}; a model of nanochat's has {needed!r}.")
    eps = values.get("rms_norm_eps", 1e-6)
    if not isinstance(eps, float) or not 0 <= eps <= _MAX_NORM_EPS:
        raise DataError(f"{where} has rms_norm_eps {eps!r}; this model adds {NORM_EPS:.1e}, which would change it.")
    return {
        "sequence_len": _number(values, "max_position_embeddings", where),
        "vocab_size": _number(values, "vocab_size", where),
        "n_layer": _number(values, "num_hidden_layers", where),
        "n_head": heads,
        "n_kv_head": heads if values.get("num_key_value_heads") is None else values["num_key_value_heads"],
        "n_embd": width,
        "window_pattern": "L",
        "rotary_base": rope.get("rope_theta", values.get("rope_theta", 10_000.0)),
        "softcap": values.get("final_logit_softcapping", 15.0),
        "qk_scale": 1.0,
        "value_embeddings": False,
        "smear": False,
        "backout": False,
    }


def from_our_config(values: Mapping[str, Any], where: str) -> GPTConfig:
    """Raises InvalidConfig on impossible values, DataError where the windows are not those of the constants."""
    names = GPTConfig().to_dict().keys()
    config = GPTConfig.from_dict({name: value for name, value in values.items() if name in names})
    again = our_config(config)
    for key in ("windows", "value_embedding_layers"):
        if values.get(key) != again[key]:
            raise DataError(f"{where} has {key} {values.get(key)}; its other values make them {again[key]}.")
    return config


def to_nanochat_name(name: str) -> str | None:
    """Of a tensor; None for what that class has no place for."""
    if match := re.fullmatch(r"layer\.(\d+)\.(\w+)", name):
        part = _PART_OF_LAYER.get(match[2])
        return None if part is None else f"model.layers.{match[1]}.{part}.weight"
    return _WHOLE.get(name)


def from_nanochat_name(name: str) -> str | None:
    """The inverse; None for a name that is not of that class."""
    if match := re.fullmatch(r"model\.layers\.(\d+)\.(\w+\.\w+)\.weight", name):
        parts = {theirs: ours for ours, theirs in _PART_OF_LAYER.items()}
        part = parts.get(match[2])
        return None if part is None else f"layer.{match[1]}.{part}"
    return {theirs: ours for ours, theirs in _WHOLE.items()}.get(name)


def _number(values: Mapping[str, Any], key: str, where: str) -> int:
    value = values.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise DataError(f"{where} has {key} {value!r}; a whole number is needed.")
    return value
