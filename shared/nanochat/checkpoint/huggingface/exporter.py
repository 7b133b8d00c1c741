"""Writes a checkpoint as a folder of Hugging Face's layout, which transformers loads, and what is built upon it.

    config.json  generation_config.json  model.safetensors  tokenizer.json  tokenizer_config.json

and modeling_nanochat_gpt.py where transformers' own NanoChat class does not compute what the model does.
"""

import json
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from nanochat.checkpoint.huggingface import layouts
from nanochat.checkpoint.store import Checkpoint
from nanochat.config import GPTConfig
from nanochat.errors import CheckpointCorrupt, Conflict, InvalidConfig
from nanochat.model.gpt import GPT
from nanochat.model.names import load_tensors
from nanochat.model.precision import DTYPES
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.huggingface import chat_template, to_huggingface
from nanochat.tokenizer.special import ASSISTANT_END, BOS

MODELING_FILE = Path(__file__).parent / "exported" / "modeling_nanochat_gpt.py"
# A gateway's own default, for chats that name none.
_TEMPERATURE = 0.3
_MAX_NEW_TOKENS = 512


@dataclass(frozen=True, kw_only=True)
class Exported:
    """beyond_nanochat: what transformers' class lacks, so that the folder has its own; empty where it lacks nothing."""

    folder: Path
    beyond_nanochat: list[str]


def write(checkpoint: Checkpoint, folder: Path, *, precision: str = "fp32") -> Exported:
    """Fill a folder that is not there yet; it appears whole or not at all.

    precision: fp32, bf16 or fp16, of all weights. Raises Conflict where the folder exists, InvalidConfig on another
    precision, OSError.
    """
    if precision not in DTYPES:
        raise InvalidConfig(f"dtype is {precision!r}; use {', '.join(DTYPES)}.", param="dtype")
    if folder.exists():
        raise Conflict(f"{folder} is there already, and an export overwrites nothing. Choose another name.")
    config, tokenizer, tensors = checkpoint.config, checkpoint.tokenizer, _prepared(checkpoint, DTYPES[precision])
    beyond = layouts.beyond_nanochat(config, tensors)
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    temporary.mkdir(parents=True)
    try:
        if beyond:
            shutil.copyfile(MODELING_FILE, temporary / MODELING_FILE.name)
            sizes, named = layouts.our_config(config), _our_names(tensors)
        else:
            sizes, named = layouts.nanochat_config(config), _nanochat_names(tensors)
        save_file(named, temporary / "model.safetensors", metadata={"format": "pt"})
        _write_json(temporary, "config.json", sizes | _token_ids(tokenizer) | {"dtype": _name(precision)})
        _write_json(temporary, "generation_config.json", _generation_config(tokenizer))
        _write_json(temporary, "tokenizer.json", to_huggingface(tokenizer))
        _write_json(temporary, "tokenizer_config.json", _tokenizer_config(config))
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Exported(folder=folder, beyond_nanochat=beyond)


def _prepared(checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, Tensor]:
    """In one dtype, without the rows that pad the vocabulary, which nothing there cuts off.

    Raises CheckpointCorrupt where the tensors are not those of the config.
    """
    with torch.device("meta"):
        model = GPT(checkpoint.config)
    try:
        load_tensors(model, checkpoint.model_tensors)
    except InvalidConfig as exc:
        raise CheckpointCorrupt(f"checkpoint {checkpoint.info.id}: {exc.message}") from exc
    V = checkpoint.config.vocab_size
    cropped = {name: t[:V] if layouts.is_table(name) else t for name, t in checkpoint.model_tensors.items()}
    return {name: tensor.to(dtype).contiguous() for name, tensor in cropped.items()}


def _our_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices are called by the layer that holds them, and `weight`."""
    return {f"{name}.weight" if tensor.ndim == 2 else name: tensor for name, tensor in tensors.items()}


def _nanochat_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What has no place there does nothing in this model, as was made sure."""
    named = {layouts.to_nanochat_name(name): tensor for name, tensor in tensors.items()}
    return {name: tensor for name, tensor in named.items() if name is not None}


def _token_ids(tokenizer: Tokenizer) -> dict[str, int]:
    end = tokenizer.special_id(ASSISTANT_END)
    return {"bos_token_id": tokenizer.bos_id, "eos_token_id": end, "pad_token_id": end}


def _generation_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """An answer ends with its mark, or where another document would begin."""
    ids = _token_ids(tokenizer)
    return {
        **ids,
        "eos_token_id": [ids["eos_token_id"], ids["bos_token_id"]],
        "do_sample": True,
        "temperature": _TEMPERATURE,
        "max_new_tokens": _MAX_NEW_TOKENS,
    }


def _tokenizer_config(config: GPTConfig) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config.sequence_len,
        "bos_token": BOS,
        "eos_token": ASSISTANT_END,
        "pad_token": ASSISTANT_END,
        "padding_side": "left",
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        "chat_template": chat_template(),
    }


def _name(precision: str) -> str:
    return str(DTYPES[precision]).removeprefix("torch.")


def _write_json(folder: Path, name: str, values: Mapping[str, Any]) -> None:
    (folder / name).write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n")
