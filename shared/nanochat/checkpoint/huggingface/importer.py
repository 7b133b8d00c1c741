"""Reads config.json and safetensors of Hugging Face's layout, of transformers' NanoChat class or of our own export.

The tokenizer beside them is tokenizer/huggingface.py's; what every import must pass, imports.py's.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, ones, zeros

from nanochat.checkpoint.huggingface.layouts import (
    NANOCHAT,
    OURS,
    from_nanochat_config,
    from_nanochat_name,
    from_our_config,
)
from nanochat.checkpoint.published import read_json
from nanochat.errors import DataError, NotFound

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"


def read_model(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Values of GPTConfig, and tensors by our names.

    Raises NotFound naming a missing file, DataError where the model is of a kind that is not ours.
    """
    path = folder / "config.json"
    values = read_json(path)
    kind = values.get("model_type")
    if kind == OURS:
        config = from_our_config(values, str(path)).to_dict()
        return config, {name.removesuffix(".weight"): tensor for name, tensor in _read_tensors(folder).items()}
    if kind != NANOCHAT:
        raise DataError(f"{path} has the model_type {kind!r}; only {NANOCHAT} and {OURS} can be imported.")
    config = from_nanochat_config(values, str(path))
    tensors = {}
    for name, tensor in _read_tensors(folder).items():
        ours = from_nanochat_name(name)
        if ours is None:
            raise DataError(f"{folder} holds the tensor {name!r}, which a model of type {NANOCHAT} has not.")
        tensors[ours] = tensor
    return config, tensors | {"resid_lambdas": ones(config["n_layer"]), "x0_lambdas": zeros(config["n_layer"])}


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    """Of one file, or of the several that an index names."""
    names = [_WEIGHTS]
    if (folder / _INDEX).is_file():
        weight_map = read_json(folder / _INDEX).get("weight_map")
        if not isinstance(weight_map, Mapping) or not all(_is_plain(name) for name in weight_map.values()):
            raise DataError(f"{folder / _INDEX} does not say which files hold the weights.")
        names = sorted(set(weight_map.values()))
    tensors: dict[str, Tensor] = {}
    for name in names:
        if not (folder / name).is_file():
            raise NotFound(f"{folder} lacks {name}.")
        try:
            tensors |= load_file(folder / name)
        except (SafetensorError, OSError) as exc:
            raise DataError(f"{folder / name} cannot be read: {exc}. Fetch it again.") from exc
    return tensors


def _is_plain(name: object) -> bool:
    """A file of the folder itself."""
    return isinstance(name, str) and Path(name).name == name and name.endswith(".safetensors")
