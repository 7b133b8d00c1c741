"""A checkpoint in memory: weights, tokenizer, caches, and the scheduler of the requests that run on it.

One for the model in service and, around a swap, one for each older model whose last requests are still running.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch

from nanochat.checkpoint import store
from nanochat.engine.backend import Backend, Weights, make_backend
from nanochat.engine.native_backend import NativeBackend
from nanochat.engine.pace import Pace
from nanochat.engine.prefix_cache import PrefixCache
from nanochat.engine.quality import int8_cost_ratio
from nanochat.errors import CheckpointCorrupt, InvalidConfig, Unavailable
from nanochat.model.float8_weights import require_float8_weights, store_in_float8
from nanochat.model.gpt import GPT, Linear
from nanochat.model.names import load_tensors
from nanochat.model.precision import compute_dtype
from nanochat.tokenizer.bpe import Tokenizer
from nanochat_inference.batching.scheduler import Scheduler
from nanochat_inference.settings import InferenceSettings

log = logging.getLogger(__name__)


@dataclass(eq=False, kw_only=True)
class LoadedModel:
    """`created` is the Unix time at which the checkpoint was written."""

    checkpoint: str
    created: float
    num_parameters: int
    device: torch.device
    backend: Backend
    prefixes: PrefixCache
    tokenizer: Tokenizer
    scheduler: Scheduler
    pace: Pace

    @classmethod
    def load(cls, folder: Path, settings: InferenceSettings, on_progress: Callable[[], None] = lambda: None) -> Self:
        """Verify and read a checkpoint. Takes seconds: not for the engine's thread. While it goes on, on_progress
        is called again and again.

        Raises CheckpointCorrupt, and InvalidConfig where the precision that is asked for cannot be had.
        """
        device = resolve_device(settings.device)
        if settings.precision == "fp8":
            require_float8_weights(device)
        torch.set_num_threads(settings.resolved_num_threads)
        checkpoint = store.load(folder, device, on_progress=on_progress)
        dtype = compute_dtype(device, "auto" if settings.precision == "int8" else settings.precision)
        with torch.device(device):
            model = GPT(checkpoint.config, dtype)
        try:
            load_tensors(model, checkpoint.model_tensors, on_progress)
        except InvalidConfig as exc:
            raise CheckpointCorrupt(f"checkpoint {folder}: {exc.message}") from exc
        model.requires_grad_(False).eval()
        if settings.precision == "fp8":
            store_in_float8(model)
        _cast_matrices(model, dtype)
        backend = make_backend(
            model,
            num_slots=settings.max_running,
            max_len=checkpoint.config.sequence_len,
            weights=_weights(model, checkpoint.tokenizer, settings, on_progress),
            is_frozen=True,
            on_progress=on_progress,
        )
        log.info("backend_chosen", extra={"backend": type(backend).__name__, "weights": backend.weights})
        return cls.of(backend, model, checkpoint.tokenizer, settings, checkpoint.info.id, checkpoint.info.created)

    @classmethod
    def of(
        cls,
        backend: Backend,
        model: GPT,
        tokenizer: Tokenizer,
        settings: InferenceSettings,
        checkpoint: str = "",
        created: float = 0.0,
    ) -> Self:
        """Around a backend that is there already."""
        return cls(
            checkpoint=checkpoint,
            created=created,
            num_parameters=model.num_parameters(),
            device=model.device,
            backend=backend,
            prefixes=PrefixCache(backend, settings.prefix_cache_mib * 2**20),
            tokenizer=tokenizer,
            scheduler=Scheduler(settings.max_running),
            pace=Pace(settings.max_step_tokens),
        )

    @property
    def context_length(self) -> int:
        return self.backend.max_len

    @property
    def cache_usage_ratio(self) -> float:
        return self.scheduler.num_cached_tokens / (self.backend.num_slots * self.backend.max_len)


def _weights(model: GPT, tokenizer: Tokenizer, settings: InferenceSettings, on_progress: Callable[[], None]) -> Weights:
    """int8 where it is asked for or nothing is, and costs no more than it may.

    Raises InvalidConfig where it is asked for and costs more.
    """
    is_named = settings.precision == "int8"
    if not is_named and settings.precision != "auto":
        return "fp32"
    untested: Weights = "int8" if is_named else "auto"  # where it cannot be had, make_backend says so or takes another
    limit = settings.int8_max_cost_ratio
    if limit == 0 or not NativeBackend.suits(model):
        return untested
    try:
        cost_ratio = int8_cost_ratio(model, tokenizer, on_progress)
    except Unavailable as exc:
        log.warning("kernels_unavailable", extra={"reason": exc.message})
        return untested
    is_good = cost_ratio <= limit
    log.info("int8_weighed", extra={"cost_ratio": round(cost_ratio, 6), "limit": limit, "is_taken": is_good})
    if is_named and not is_good:
        raise InvalidConfig(
            f"int8 costs this model {cost_ratio:.2%} in bits per byte, and may cost {limit:.2%}. Use precision auto or "
            "fp32, or let it cost more (NANOCHAT_INFERENCE_INT8_MAX_COST_RATIO; 0: no bound).",
            param="precision",
        )
    return "int8" if is_good else "fp32"


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
