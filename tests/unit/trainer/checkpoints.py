"""Checkpoints as far as their manifests go: no tensors."""

import json
from pathlib import Path

from nanochat.checkpoint import manifest
from nanochat.config import GPTConfig


def make_checkpoint(home: Path, run: str, stage: str = "sft", step: int = 5) -> str:
    checkpoint = manifest.checkpoint_id(run, stage, step)
    folder = manifest.checkpoints_dir(home) / checkpoint
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(GPTConfig(n_layer=1, n_head=1, n_kv_head=1, n_embd=64).to_dict()))
    (folder / "state.json").write_text(json.dumps({"metrics": {"val_bpb": 1.5}}))
    (folder / "model.safetensors").write_bytes(b"weights of " + run.encode())
    manifest.write(folder, run=run, stage=stage, step=step, created=float(step))
    return checkpoint
