"""Saves and loads checkpoints: whole or not at all, verified before use, and never pickle.

    model.safetensors  config.json  tokenizer.json  optimizer/rank_00000.safetensors ...  state.json  manifest.json

`state` is the training loop's own (step, metrics, loaders): JSON that comes back as it went in. What is in optimizer/
is optimizer_state.py's.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nanochat.checkpoint import manifest
from nanochat.checkpoint import optimizer_state as optimizer_state_files
from nanochat.checkpoint.optimizer_state import write_tensors
from nanochat.collectives import ALONE, Peers
from nanochat.config import GPTConfig
from nanochat.errors import CheckpointCorrupt, DataError
from nanochat.files import locked, new_folder, remove_folder
from nanochat.optim.parts import Moment, Saved
from nanochat.tokenizer.bpe import Tokenizer

_MODEL = "model.safetensors"
_OPTIMIZER = "optimizer"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A loaded checkpoint. `optimizer_tensors` (None: not saved, or not asked for) are read when they are indexed."""

    info: manifest.CheckpointInfo
    config: GPTConfig
    tokenizer: Tokenizer
    model_tensors: dict[str, Tensor]
    optimizer_tensors: Mapping[str, Saved] | None
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
    optimizer_state: Mapping[str, Moment] | None = None,
    peers: Peers = ALONE,
) -> str:
    """Write a checkpoint and return its id. Until this returns, readers see the step's old checkpoint or none.

    Tensors may be on any device. All ranks call it, each with what it holds of the optimizer's state, and with a `home`
    that is the same files for all; the rest is rank 0's. Raises OSError (disk full, no permission) on every rank,
    leaving nothing behind, and PeerLost.
    """
    identity = manifest.checkpoint_id(run, stage, step)
    target = folder = manifest.checkpoints_dir(home) / identity
    with contextlib.ExitStack() as whole:
        with _on_all(peers):
            if peers.rank == 0:
                whole.enter_context(locked(target.parent))
                folder = whole.enter_context(new_folder(target))
                if optimizer_state is not None:
                    (folder / _OPTIMIZER).mkdir()
        folder = Path(peers.first(str(folder)))
        with _on_all(peers):
            if optimizer_state is not None:
                _flush(optimizer_state_files.write(folder / _OPTIMIZER, peers.rank, optimizer_state))
            if peers.rank == 0:
                write_tensors(model_tensors, folder / _MODEL)
                (folder / "config.json").write_text(json.dumps(config.to_dict(), indent=1))
                (folder / "tokenizer.json").write_bytes(tokenizer.to_json())
                (folder / manifest.STATE).write_text(json.dumps(dict(state), indent=1))
        with _on_all(peers):
            if peers.rank == 0:
                manifest.write(folder, run=run, stage=stage, step=step, created=time.time())
                whole.close()
    return identity


def add_metrics(home: Path, identity: str, metrics: Mapping[str, float]) -> None:
    """Add to the metrics of a checkpoint's state what was measured after it was saved.

    Only state and manifest are written anew; the large files are linked. Readers see the old state or the new.
    """
    target = manifest.checkpoints_dir(home) / identity
    with locked(target.parent), new_folder(target) as folder:
        info, state = manifest.read_info(target), manifest.read_state(target)
        known = {name: file for name, file in manifest.read(target)["files"].items() if name != manifest.STATE}
        for path in sorted(target.rglob("*")):
            copy = folder / path.relative_to(target)
            if path.is_dir():
                copy.mkdir()
            elif path.name not in (manifest.MANIFEST, manifest.STATE):
                copy.hardlink_to(path)
        state["metrics"] = {**state.get("metrics", {}), **metrics}
        (folder / manifest.STATE).write_text(json.dumps(state, indent=1))
        manifest.write(folder, run=info.run, stage=info.stage, step=info.step, created=info.created, known=known)


def load(
    folder: Path,
    device: torch.device | str = "cpu",
    *,
    with_optimizer: bool = False,
    is_verified: bool = False,
    on_progress: Callable[[], None] = lambda: None,
) -> Checkpoint:
    """Verify every byte, unless somebody just has, then read. Tensors come in the dtypes they were saved in, weights on
    `device`. on_progress is called again and again while it goes on. Raises CheckpointCorrupt naming the bad file.
    """
    if not is_verified:
        manifest.verify(folder, on_progress)
    info = manifest.read_info(folder)
    try:
        tokenizer = Tokenizer.load(folder / "tokenizer.json")
        model_tensors = _read_tensors(folder / _MODEL, device, on_progress)
        has_optimizer = with_optimizer and (folder / _OPTIMIZER).is_dir()
        optimizer_tensors = optimizer_state_files.read(folder / _OPTIMIZER) if has_optimizer else None
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


def _read_tensors(path: Path, device: torch.device | str, on_progress: Callable[[], None]) -> dict[str, Tensor]:
    """One by one, since no other thread runs while safetensors reads."""
    tensors: dict[str, Tensor] = {}
    file: Any
    with safe_open(path, framework="pt", device=str(device)) as file:
        for name in file.keys():  # noqa: SIM118 (it has no iterator)
            tensors[name] = file.get_tensor(name)
            on_progress()
    return tensors


@contextlib.contextmanager
def _on_all(peers: Peers) -> Iterator[None]:
    """What fails with OSError on one rank fails on all, so that none waits for it."""
    error: OSError | None = None
    try:
        yield
    except OSError as exc:
        error = exc
    reasons = peers.texts("" if error is None else str(error))
    if error is not None:
        raise error
    for rank, reason in enumerate(reasons):
        if reason:
            raise OSError(f"rank {rank} could not write its part of a checkpoint: {reason}")


def _flush(path: Path) -> None:
    """To the disk: on another machine, new_folder's flushing does not reach what this one has written."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
