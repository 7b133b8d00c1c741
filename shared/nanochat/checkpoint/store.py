"""Saves and loads checkpoints: whole or not at all, verified before use, and never pickle.

    model.safetensors  config.json  tokenizer.json  optimizer/state.safetensors  state.json  manifest.json

`state` is the training loop's own (step, metrics, loader, random generators): JSON that comes back as it went in.
"""

import json
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from nanochat.checkpoint import manifest
from nanochat.config import GPTConfig
from nanochat.errors import CheckpointCorrupt, DataError
from nanochat.files import locked, new_folder, remove_folder
from nanochat.tokenizer.bpe import Tokenizer

_MODEL = "model.safetensors"
_OPTIMIZER = "optimizer/state.safetensors"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A loaded checkpoint. `optimizer_tensors` is None when none were saved or asked for."""

    info: manifest.CheckpointInfo
    config: GPTConfig
    tokenizer: Tokenizer
    model_tensors: dict[str, Tensor]
    optimizer_tensors: dict[str, Tensor] | None
    state: dict[str, Any]


def save(
    home: Path,
    run: str,
    stage: str,
    step: int,
    *,
    model_tensors: Mapping[str, Tensor],
    config: GPTConfig,
    tokenizer: Tokenizer,
    state: Mapping[str, Any],
    optimizer_tensors: Mapping[str, Tensor] | None = None,
) -> str:
    """Write a checkpoint and return its id. Until this returns, readers see the step's old checkpoint or none.

    Tensors may be on any device. Called by one rank. Raises OSError (disk full, no permission), leaving nothing behind.
    """
    identity = manifest.checkpoint_id(run, stage, step)
    target = manifest.checkpoints_dir(home) / identity
    with locked(target.parent), new_folder(target) as folder:
        _save_tensors(model_tensors, folder / _MODEL)
        if optimizer_tensors is not None:
            (folder / _OPTIMIZER).parent.mkdir()
            _save_tensors(optimizer_tensors, folder / _OPTIMIZER)
        (folder / "config.json").write_text(json.dumps(config.to_dict(), indent=1))
        (folder / "tokenizer.json").write_bytes(tokenizer.to_json())
        (folder / manifest.STATE).write_text(json.dumps(dict(state), indent=1))
        manifest.write(folder, run=run, stage=stage, step=step, created=time.time())
    return identity


def add_metrics(home: Path, identity: str, metrics: Mapping[str, float]) -> None:
    """Add to the metrics of a checkpoint's state what was measured after it was saved.

    Only state and manifest are written anew; the large files are linked. Readers see the old state or the new.
    """
    target = manifest.checkpoints_dir(home) / identity
    with locked(target.parent), new_folder(target) as folder:
        info, state = manifest.read_info(target), manifest.read_state(target)
        for path in sorted(target.rglob("*")):
            copy = folder / path.relative_to(target)
            if path.is_dir():
                copy.mkdir()
            elif path.name not in (manifest.MANIFEST, manifest.STATE):
                copy.hardlink_to(path)
        state["metrics"] = {**state.get("metrics", {}), **metrics}
        (folder / manifest.STATE).write_text(json.dumps(state, indent=1))
        manifest.write(folder, run=info.run, stage=info.stage, step=info.step, created=info.created)


def load(folder: Path, device: torch.device | str = "cpu", *, with_optimizer: bool = False) -> Checkpoint:
    """Verify every byte, then read. Tensors come in the dtypes they were saved in, on `device`.

    Raises CheckpointCorrupt naming the bad file.
    """
    manifest.verify(folder)
    info = manifest.read_info(folder)
    try:
        tokenizer = Tokenizer.load(folder / "tokenizer.json")
        model_tensors = load_file(folder / _MODEL, device=str(device))
        has_optimizer = with_optimizer and (folder / _OPTIMIZER).is_file()
        optimizer_tensors = load_file(folder / _OPTIMIZER, device=str(device)) if has_optimizer else None
    except (DataError, SafetensorError, OSError) as exc:
        raise CheckpointCorrupt(f"checkpoint {folder} cannot be read: {exc}. Choose another checkpoint.") from exc
    return Checkpoint(
        info=info,
        config=info.config,
        tokenizer=tokenizer,
        model_tensors=model_tensors,
        optimizer_tensors=optimizer_tensors,
        state=manifest.read_state(folder),
    )


def prune(home: Path, run: str, stage: str, keep_last: int, protected: Collection[str] = ()) -> list[str]:
    """Delete all but the newest `keep_last` checkpoints of a stage; returns the ids that went.

    Ids in `protected` (promoted ones, a base of another run) stay and are not counted.
    """
    assert keep_last >= 1
    parent = manifest.checkpoints_dir(home) / run / stage
    infos = [info for info in manifest.list_checkpoints(home) if (info.run, info.stage) == (run, stage)]
    doomed = [info for info in infos if info.id not in protected][keep_last:]
    with locked(parent):
        for info in doomed:
            remove_folder(info.folder)
    return [info.id for info in doomed]


def _save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
