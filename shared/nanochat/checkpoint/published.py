"""Reads the checkpoints that karpathy/nanochat writes and publishes: model_000650.pt, meta_000650.json, tokenizer.pkl.

Their names and layout are that project's. The constants of the model are not in the files; they follow from the time
that these come from, which shows in the tensors.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nanochat.checkpoint.pickled import read_encoding, read_tensor, read_tensors
from nanochat.errors import DataError, NotFound
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.special import SPECIAL_TOKENS

_MODEL = re.compile(r"model_(\d+)\.pt")
_SIZES = ("sequence_len", "vocab_size", "n_layer", "n_head", "n_kv_head", "n_embd")
_WHOLE = {
    "transformer.wte.weight": "embedding",
    "lm_head.weight": "head",
    "resid_lambdas": "resid_lambdas",
    "x0_lambdas": "x0_lambdas",
    "smear_gate.weight": "smear_gate",
    "smear_lambda": "smear_lambda",
    "backout_lambda": "backout_lambda",
}
_PART_OF_LAYER = {
    "attn.c_q": "query",
    "attn.c_k": "key",
    "attn.c_v": "value",
    "attn.c_proj": "attention_out",
    "attn.ve_gate": "value_gate",
    "mlp.c_fc": "mlp_up",
    "mlp.c_proj": "mlp_down",
}
# torch.compile puts it before every name.
_COMPILED = "_orig_mod."

# What files of other times do not say. With neither smear nor gates of 12 channels they are from before March 2026.
# Source: that project's gpt.py of those times, and its dev/LOG.md from January 2026 on.
EARLIER: dict[str, Any] = {
    "rotary_base": 10_000.0,
    "qk_scale": 1.0,
    "short_window_divisor": 2,
    "short_window_multiple": 1,
    "value_gate_range": 2.0,
    "smear": False,
    "backout": False,
}
# For some weeks of March 2026.
BEFORE_SMEAR: dict[str, Any] = {"qk_scale": 1.15, "short_window_divisor": 3, "smear": False, "backout": False}
_NARROW_GATE = 12


def steps(folder: Path) -> list[int]:
    """Of the checkpoints in a folder, in order."""
    matches = (_MODEL.fullmatch(path.name) for path in folder.glob("model_*.pt"))
    return sorted(int(match[1]) for match in matches if match)


def read_model(folder: Path, step: int) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, float]]:
    """Values of the model's config, tensors by our names, and metrics, of one step.

    Raises NotFound for a file that is missing, DataError where one holds something else.
    """
    meta_path, model_path = _file(folder, f"meta_{step:06d}.json"), _file(folder, f"model_{step:06d}.pt")
    meta = read_json(meta_path)
    sizes = meta.get("model_config")
    if not isinstance(sizes, dict) or not set(_SIZES) <= sizes.keys():
        raise DataError(f"{meta_path} has no model_config with {', '.join(_SIZES)}.")
    unknown = sorted(sizes.keys() - {*_SIZES, "window_pattern"})
    if unknown:
        raise DataError(f"{meta_path} has the keys {unknown} in model_config: a model of another kind.")
    tensors = _renamed(read_tensors(model_path), model_path)
    config = {
        **{name: sizes[name] for name in _SIZES},
        "window_pattern": str(sizes.get("window_pattern", "L")).upper(),
        **constants(tensors),
    }
    num_layers = sizes["n_layer"]
    if isinstance(num_layers, int) and num_layers > 0:
        tensors.setdefault("resid_lambdas", torch.ones(num_layers))
        tensors.setdefault("x0_lambdas", torch.zeros(num_layers))
    return config, tensors, _metrics(meta)


def constants(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Values of GPTConfig that differ from ours, told from the tensors that there are and their widths."""
    gates = [tensor for name, tensor in tensors.items() if name.endswith(".value_gate") and tensor.ndim == 2]
    found: dict[str, Any] = {"value_embeddings": bool(gates)}
    if gates:
        found["value_gate_channels"] = gates[0].size(1)
    if "smear_gate" in tensors:
        return found | {"smear_channels": tensors["smear_gate"].size(-1), "backout": "backout_lambda" in tensors}
    return found | (BEFORE_SMEAR if found.get("value_gate_channels") == _NARROW_GATE else EARLIER)


def read_tokenizer(path: Path) -> Tokenizer:
    """Of a tokenizer.pkl, checked against the token_bytes.pt beside it where there is one.

    Raises DataError naming the file.
    """
    encoding = read_encoding(path)
    tokens = sorted(encoding.ranks, key=encoding.ranks.__getitem__)
    if [encoding.ranks[token] for token in tokens] != list(range(len(tokens))):
        raise DataError(f"{path} has ranks that are not 0, 1, 2, ... without a gap.")
    if not {bytes([byte]) for byte in range(256)} <= encoding.ranks.keys():
        raise DataError(f"{path} lacks one of the 256 single bytes.")
    if encoding.special_tokens != {name: len(tokens) + i for i, name in enumerate(SPECIAL_TOKENS)}:
        raise DataError(f"{path} does not give its last ids to {', '.join(SPECIAL_TOKENS)}, in this order.")
    try:
        tokenizer = Tokenizer(tokens, encoding.pattern)
    except ValueError as exc:
        raise DataError(f"{path} has a pattern that does not compile: {exc}.") from exc
    lengths = path.with_name("token_bytes.pt")
    if lengths.is_file():
        _check_lengths(tokenizer, lengths)
    return tokenizer


def read_json(path: Path) -> dict[str, Any]:
    """Raises DataError where the file is no JSON object."""
    try:
        values = json.loads(path.read_bytes())
    except ValueError as exc:
        raise DataError(f"{path} is no JSON: {exc}.") from exc
    if not isinstance(values, dict):
        raise DataError(f"{path} holds {type(values).__name__}, and a JSON object was expected.")
    return values


def _file(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        present = ", ".join(sorted(path.name for path in folder.iterdir())[:20]) or "nothing"
        raise NotFound(f"{folder} lacks {name}; it holds {present}.")
    return folder / name


def _renamed(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    renamed, unknown = {}, []
    for name, tensor in tensors.items():
        ours = _our_name(name.removeprefix(_COMPILED))
        if ours is None or ours in renamed:
            unknown.append(name)
        else:
            renamed[ours] = tensor
    if unknown:
        raise DataError(f"{path} holds tensors that this model has no place for: {unknown[:5]}; another kind of model.")
    return renamed


def _our_name(name: str) -> str | None:
    if name in _WHOLE:
        return _WHOLE[name]
    if match := re.fullmatch(r"transformer\.h\.(\d+)\.(\w+\.\w+)\.weight", name):
        part = _PART_OF_LAYER.get(match[2])
        return None if part is None else f"layer.{match[1]}.{part}"
    match = re.fullmatch(r"value_embeds\.(\d+)\.weight", name)
    return None if match is None else f"layer.{match[1]}.value_embedding"


def _metrics(meta: Mapping[str, Any]) -> dict[str, float]:
    """Those that have a name here too."""
    value = meta.get("val_bpb")
    return {"val_bpb": float(value)} if isinstance(value, int | float) and math.isfinite(value) else {}


def _check_lengths(tokenizer: Tokenizer, path: Path) -> None:
    """token_bytes.pt belongs to the tokenizer. It counts 3 for each byte that is no whole character, so those tokens
    say nothing."""
    lengths = read_tensor(path)
    if tuple(lengths.shape) != (tokenizer.vocab_size,) or lengths.is_floating_point():
        raise DataError(
            f"{path} has the shape {tuple(lengths.shape)}; the tokenizer beside it has {tokenizer.vocab_size} tokens."
        )
    for token_id, (found, expected) in enumerate(zip(lengths.tolist(), tokenizer.token_byte_lengths(), strict=True)):
        if found != expected and _is_text(tokenizer.token_bytes(token_id)):
            raise DataError(
                f"{path} gives token {token_id} {found} bytes; the tokenizer beside it {expected}. They do not belong "
                "together."
            )


def _is_text(token: bytes) -> bool:
    try:
        token.decode()
    except UnicodeDecodeError:
        return False
    return True
