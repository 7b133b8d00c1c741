"""What pretraining and fine-tuning learn from: the next token of every row that a loader gives."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nanochat.collectives import ALONE, Peers
from nanochat.data.loader import Batch, Loader
from nanochat.errors import OutOfMemory
from nanochat.model.gpt import GPT
from nanochat.optim.peak_flops import peak_flops
from nanochat.recipes.batch import BatchSizes, out_of_memory
from nanochat.recipes.progress import ProgressWriter
from nanochat.recipes.training_loop import Accumulated, Position

_NUM_LOSS_POINTS = 250  # about so many train_loss points make a run's curve
_LOSS_WEIGHT = 0.1  # of the newest step in the running loss


class NextToken:
    """A step is num_micro_steps batches of the loader; its loss is the mean over the counted targets of all of them."""

    def __init__(
        self,
        model: GPT,
        loader: Loader,
        sizes: BatchSizes,
        *,
        num_steps: int,
        progress: ProgressWriter,
        peers: Peers = ALONE,
    ) -> None:
        self._model, self._loader, self._sizes, self._peers = model, loader, sizes, peers
        self._num_steps, self._progress = num_steps, progress
        self._peak = peak_flops(model.device)

    @property
    def sequence_len(self) -> int:
        return self._sizes.sequence_len

    def accumulate(self, step: int, scale: float) -> Accumulated:
        batches = [next(self._loader) for _ in range(self._sizes.num_micro_steps)]
        loss = accumulate(self._model, batches, self._peers, scale)
        return Accumulated(loss=loss, num_tokens=self._sizes.tokens_per_step)

    def report(self, position: Position, loss: float) -> dict[str, float]:
        position.smooth_loss += _LOSS_WEIGHT * (loss - position.smooth_loss)
        # A running mean that began at 0 is too low by this factor.
        num_counted = position.step - position.num_skipped + 1
        train_loss = position.smooth_loss / (1 - (1 - _LOSS_WEIGHT) ** num_counted)
        position.metrics["train_loss"] = train_loss
        if position.step % max(1, self._num_steps // _NUM_LOSS_POINTS) and position.step < self._num_steps - 1:
            return {}
        values = {"train_loss": train_loss}
        speed = self._progress.tokens_per_second
        if self._peak and speed:
            flops = self._model.num_flops_per_token() * speed
            values["train_mfu_ratio"] = flops / (self._peak * self._peers.world_size)
        return values

    def state(self) -> dict[str, Any]:
        return self._loader.state()

    def out_of_memory(self, exc: BaseException) -> OutOfMemory | None:
        return out_of_memory(exc, self._sizes)


def accumulate(model: GPT, batches: Sequence[Batch], peers: Peers = ALONE, scale: float = 1.0) -> float:
    """Add up the gradients of all batches, times scale; gives the loss.

    Averaged over ranks, both are those of the whole batch.
    """
    num_counted = sum(int((batch.targets >= 0).sum()) for batch in batches)
    num_targets = max(1.0, peers.sum([num_counted])[0]) / peers.world_size
    total = torch.zeros((), device=model.device)
    for batch in batches:
        inputs, targets = batch.to(model.device)
        loss: Tensor = model(inputs, targets, reduction="sum") / num_targets
        (loss * scale).backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    return float(total)
