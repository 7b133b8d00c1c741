"""Writes a run's checkpoints while training goes on: copies what steps will change, and leaves the disk to a thread.

One at a time: the next checkpoint waits for it, and so does the end of the run, whichever that is. What fails in the
thread fails the run. What a checkpoint holds is training_loop.py's; how it comes to the disk is checkpoint/store.py's.
"""

import json
import logging
import time
from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Self

from torch import Tensor

from nanochat.checkpoint import store
from nanochat.checkpoint.manifest import checkpoint_id
from nanochat.collectives import Peers
from nanochat.config import GPTConfig
from nanochat.errors import Unavailable
from nanochat.model.gpt import GPT
from nanochat.model.names import named_tensors
from nanochat.optim.optimizer import MuonAdamW
from nanochat.optim.parts import Moment
from nanochat.recipes.job import JobContext
from nanochat.recipes.protected import protected_checkpoints
from nanochat.tokenizer.bpe import Tokenizer

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Copy:
    """What a checkpoint is written from. `kept_steps` stay when older ones go."""

    step: int
    config: GPTConfig
    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Moment]
    state: Mapping[str, Any]
    loader_state: str
    kept_steps: Collection[int]
    started: float


class Saver:
    """Of one run's stage, on every rank; all save at the same steps. Use it in `with`: leaving waits for the disk.

    `keep_last`: when a checkpoint is written, all but so many of the newest go, and what may not (protected.py).
    """

    def __init__(
        self, job: JobContext, run: str, stage: str, tokenizer: Tokenizer, peers: Peers, keep_last: int | None
    ) -> None:
        self._job, self._run, self._stage, self._tokenizer, self._keep_last = job, run, stage, tokenizer, keep_last
        self._peers = peers.apart()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: list[Future[None]] = []

    def save(
        self,
        step: int,
        model: GPT,
        optimizer: MuonAdamW,
        state: Mapping[str, Any],
        loader_state: Mapping[str, Any],
        *,
        kept_steps: Collection[int] = (),
    ) -> None:
        """Copy now, write later. Raises what an earlier one has failed with."""
        self.wait()
        copy = _Copy(
            step=step,
            config=model.config,
            model={name: _copied(tensor) for name, tensor in named_tensors(model).items()}
            if self._peers.rank == 0
            else {},
            optimizer={name: replace(m, tensor=_copied(m.tensor)) for name, m in optimizer.state().items()},
            state=json.loads(json.dumps(dict(state))),
            loader_state=json.dumps(loader_state),
            kept_steps=kept_steps,
            started=time.monotonic(),
        )
        self._pending.append(self._thread.submit(self._write, copy))

    def add_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """To the checkpoint of a step, once it is written."""
        if self._peers.rank == 0:
            identity = checkpoint_id(self._run, self._stage, step)
            self._pending.append(self._thread.submit(store.add_metrics, self._job.home, identity, dict(values)))

    def check(self) -> None:
        """Raises what has failed by now: OSError, or PeerLost."""
        while self._pending and self._pending[0].done():
            self._pending.pop(0).result()

    def wait(self) -> None:
        """Until all is on the disk. Raises what has failed."""
        while self._pending:
            self._pending.pop(0).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=True)

    def _write(self, copy: _Copy) -> None:
        """In the thread."""
        loaders = [json.loads(text) for text in self._peers.texts(copy.loader_state)]
        checkpoint = store.save(
            self._job.home,
            self._run,
            self._stage,
            copy.step,
            model_tensors=copy.model,
            config=copy.config,
            tokenizer=self._tokenizer,
            state={**copy.state, "loader": loaders},
            optimizer_state=copy.optimizer,
            peers=self._peers,
        )
        seconds = time.monotonic() - copy.started
        self._job.progress.checkpoint(copy.step, checkpoint)
        self._job.progress.metrics(copy.step, {"checkpoint_seconds": seconds})
        log.info("checkpoint_written", extra={"checkpoint": checkpoint, "seconds": round(seconds, 2)})
        if self._keep_last is not None and self._peers.rank == 0:
            self._prune(self._keep_last, copy.kept_steps)

    def _prune(self, keep_last: int, kept_steps: Collection[int]) -> None:
        try:
            protected = protected_checkpoints(self._job.home, self._run, self._stage)
        except Unavailable as exc:  # better too many than one that is served
            log.warning("checkpoints_not_pruned", extra={"reason": exc.message})
            return
        protected |= {checkpoint_id(self._run, self._stage, step) for step in kept_steps}
        for identity in store.prune(self._job.home, self._run, self._stage, keep_last, protected):
            log.info("checkpoint_pruned", extra={"checkpoint": identity})


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True)
