"""Takes up a model from elsewhere: a folder of nanochat's published files, or one of Hugging Face's layout.

Which of the two it is shows in the files; what is in them is published.py's and huggingface/'s. Here is what both must
pass before they become a checkpoint.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nanochat.checkpoint import manifest, published, store
from nanochat.checkpoint.huggingface import importer
from nanochat.checkpoint.huggingface.layouts import is_table
from nanochat.config import GPTConfig
from nanochat.errors import Conflict, DataError, InvalidConfig, NotFound
from nanochat.model.gpt import GPT
from nanochat.model.names import load_tensors
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.huggingface import load_any


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A model read from `source` and checked: its tensors are those of its config, its tokenizer that of its size."""

    source: Path
    step: int
    config: GPTConfig
    tensors: dict[str, Tensor]
    tokenizer: Tokenizer
    metrics: dict[str, float]


def read(
    folder: Path,
    *,
    step: int | None = None,
    tokenizer_folder: Path | None = None,
    constants: Mapping[str, Any] | None = None,
) -> Imported:
    """Read and check a folder. Nothing in it is run.

    step: which of several; default the last. tokenizer_folder: where the tokenizer is, if not beside the model.
    constants: values of GPTConfig that the files do not tell, over those that are concluded.

    Raises NotFound naming a file that is missing, DataError or InvalidConfig saying what does not fit.
    """
    if not folder.is_dir():
        raise NotFound(f"there is no folder {folder}.")
    steps = published.steps(folder)
    metrics: dict[str, float] = {}
    if steps:
        chosen = steps[-1] if step is None else step
        if chosen not in steps:
            raise NotFound(f"{folder} has no step {chosen}; it has {', '.join(map(str, steps))}.")
        values, tensors, metrics = published.read_model(folder, chosen)
    elif (folder / "config.json").is_file():
        chosen = step or 0
        values, tensors = importer.read_model(folder)
    else:
        raise NotFound(
            f"{folder} holds neither model_*.pt with meta_*.json (nanochat's) nor config.json with model.safetensors "
            "(Hugging Face's)."
        )
    config = GPTConfig.from_dict(values | dict(constants or {}))
    return Imported(
        source=folder,
        step=chosen,
        config=config,
        tensors=_checked(config, tensors, folder),
        tokenizer=_tokenizer(tokenizer_folder or folder, config),
        metrics=metrics,
    )


def save(home: Path, run: str, stage: str, imported: Imported) -> str:
    """Write it as a checkpoint; its id. Raises Conflict where there is one of that name and step."""
    identity = manifest.checkpoint_id(run, stage, imported.step)
    if (manifest.checkpoints_dir(home) / identity).exists():
        raise Conflict(f"checkpoint {identity} is there already; choose another name for the run.")
    return store.save(
        home,
        run,
        stage,
        imported.step,
        model_tensors=imported.tensors,
        config=imported.config,
        tokenizer=imported.tokenizer,
        state={"step": imported.step, "metrics": imported.metrics, "imported_from": imported.source.name},
    )


def _tokenizer(folder: Path, config: GPTConfig) -> Tokenizer:
    pickled, plain = folder / "tokenizer.pkl", folder / "tokenizer.json"
    if pickled.is_file():
        path, tokenizer = pickled, published.read_tokenizer(pickled)
    elif plain.is_file():
        path, tokenizer = plain, load_any(plain)
    else:
        raise NotFound(f"{folder} lacks tokenizer.pkl or tokenizer.json; name the folder that has it (--tokenizer).")
    if tokenizer.vocab_size != config.vocab_size:
        raise DataError(
            f"tokenizer file {path} has {tokenizer.vocab_size} tokens and the model {config.vocab_size}; they do not "
            "belong together."
        )
    return tokenizer


def _checked(config: GPTConfig, tensors: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """The tensors, those by token padded as the model has them. Raises DataError where they are not this model's."""
    padded = {name: _padded(name, tensor, config) for name, tensor in tensors.items()}
    with torch.device("meta"):
        model = GPT(config)
    try:
        load_tensors(model, padded)
    except InvalidConfig as exc:
        raise DataError(f"{folder}: {exc.message}") from exc
    for name, tensor in padded.items():
        if not tensor.is_floating_point() or not torch.isfinite(tensor).all():
            raise DataError(f"{folder}: weight {name} holds values that are no finite numbers; the file is damaged.")
    return padded


def _padded(name: str, tensor: Tensor, config: GPTConfig) -> Tensor:
    """Rows for V tokens become as many as the model has."""
    if not is_table(name) or tensor.ndim != 2 or tensor.size(0) != config.vocab_size:
        return tensor
    rows = config.padded_vocab_size - config.vocab_size
    return torch.cat((tensor, tensor.new_zeros(rows, tensor.size(1)))) if rows else tensor
