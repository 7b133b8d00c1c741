"""A checkpoint in memory: model, tokenizer, cache, and the scheduler of the requests that run on it.

One for the model in service and, around a swap, one for each older model whose last requests are still running.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch

from nanochat.checkpoint import store
from nanochat.errors import CheckpointCorrupt, InvalidConfig
from nanochat.model.gpt import GPT, Linear
from nanochat.model.kv_cache import KVCache
from nanochat.model.names import load_tensors
from nanochat.model.precision import compute_dtype
from nanochat.tokenizer.bpe import Tokenizer
from nanochat_inference.batching.scheduler import Scheduler
from nanochat_inference.settings import InferenceSettings


@dataclass(eq=False, kw_only=True)
class LoadedModel:
    """`created` is the Unix time at which the checkpoint was written."""

    checkpoint: str
    created: float
    model: GPT
    tokenizer: Tokenizer
    cache: KVCache
    scheduler: Scheduler

    @classmethod
    def load(cls, folder: Path, settings: InferenceSettings) -> Self:
        """Verify and read a checkpoint. Raises CheckpointCorrupt. Takes seconds: not for the engine's thread."""
        device = resolve_device(settings.device)
        checkpoint = store.load(folder, device)
        dtype = compute_dtype(device, settings.precision)
        with torch.device(device):
            model = GPT(checkpoint.config, dtype)
        try:
            load_tensors(model, checkpoint.model_tensors)
        except InvalidConfig as exc:
            raise CheckpointCorrupt(f"checkpoint {folder}: {exc.message}") from exc
        model.requires_grad_(False).eval()
        _cast_matrices(model, dtype)
        return cls(
            checkpoint=checkpoint.info.id,
            created=checkpoint.info.created,
            model=model,
            tokenizer=checkpoint.tokenizer,
            cache=KVCache(checkpoint.config, settings.max_running, checkpoint.config.sequence_len, device, dtype),
            scheduler=Scheduler(settings.max_running),
        )

    @property
    def context_length(self) -> int:
        return self.cache.max_len

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def num_parameters(self) -> int:
        return self.model.num_parameters()

    @property
    def cache_usage_ratio(self) -> float:
        return self.scheduler.num_cached_tokens / (self.cache.num_slots * self.cache.max_len)


def resolve_device(name: str) -> torch.device:
    """Raises InvalidConfig on a device that is not here."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as exc:  # a build of torch without CUDA asserts that it has it
        raise InvalidConfig(f"device {name!r} cannot be used here ({exc}). Use auto or cpu.", param="device") from exc
    return device


def _cast_matrices(model: GPT, dtype: torch.dtype) -> None:
    """Matrices are used in the compute dtype; cast them once instead of in every step. Results stay the same."""
    for module in model.modules():
        if isinstance(module, Linear):
            module.to(dtype)
