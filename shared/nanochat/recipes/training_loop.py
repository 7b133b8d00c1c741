"""The loop that every kind of training shares: accumulate, check, update; report, save, evaluate, stop.

What a step learns from is its objective's (next_token.py, policy_gradient.py); what is trained, at which rates and how
it is judged comes from the recipes (pretrain.py, sft.py, rl.py). Begins to save (saving.py) before it evaluates, so
that nothing that evaluation meets can cost a trained step. Nothing in a step draws random numbers that its number does
not give: weights, optimizer, position and objective are the whole state of a run.
"""

import gc
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from nanochat.checkpoint.manifest import checkpoint_id
from nanochat.checkpoint.store import Checkpoint
from nanochat.collectives import ALONE, Peers
from nanochat.errors import OutOfMemory, TrainingDiverged
from nanochat.model.gpt import GPT
from nanochat.model.names import load_tensors
from nanochat.optim.optimizer import MuonAdamW
from nanochat.optim.schedule import Schedule, apply_schedule
from nanochat.recipes.environment import report_setup
from nanochat.recipes.job import JobContext, Outcome
from nanochat.recipes.loss_scale import LossScale
from nanochat.recipes.saving import Saver
from nanochat.recipes.stop import Stopped
from nanochat.tokenizer.bpe import Tokenizer

log = logging.getLogger(__name__)

# A step that cannot be taken is left out; this many in a row will not get better.
MAX_SKIPPED_IN_A_ROW = 10
_COLLECT_EVERY = 5000


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Something measured every so many steps (0: at the end only), and at the end; before the first one too where
    `is_first`. `measure` may raise Stopped."""

    measure: Callable[[], dict[str, float]]
    every: int
    is_first: bool = False


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """Which of what is measured tells the best checkpoint, which stays when older ones go."""

    metric: str = "val_bpb"
    is_higher_better: bool = False

    def is_better(self, value: float, than: float | None) -> bool:
        """Than the best so far; a value that is no finite number never is."""
        if not math.isfinite(value):
            return False
        return than is None or (value > than if self.is_higher_better else value < than)


@dataclass(kw_only=True)
class Position:
    """Where a run stands, besides weights, optimizer and data. JSON, in every checkpoint's state."""

    step: int = 0
    num_skipped: int = 0
    num_skipped_in_a_row: int = 0
    smooth_loss: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    train_seconds: float = 0.0  # in steps, over all attempts
    best_value: float | None = None  # of the run's criterion, among the steps that have a checkpoint
    best_step: int | None = None

    @classmethod
    def of(cls, saved: dict[str, Any]) -> Self:
        """As a checkpoint has it; older ones know no criterion but val_bpb."""
        values = dict(saved)
        if "best_val_bpb" in values:
            values["best_value"] = values.pop("best_val_bpb")
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class Accumulated:
    """What a step has put into the gradients: `loss`, whose mean over the ranks is the step's, and the tokens that it
    took of all ranks. Without `has_signal`, on all ranks alike, nothing is to be learnt and no weight moves."""

    loss: float
    num_tokens: int
    has_signal: bool = True


class Objective(Protocol):
    """What the steps of a run learn from. Every rank makes every call."""

    @property
    def sequence_len(self) -> int:
        """Tokens of the longest row that it trains on."""

    def accumulate(self, step: int, scale: float) -> Accumulated:
        """Add up the gradients of a step, times scale; averaged over the ranks they are the step's."""

    def report(self, position: Position, loss: float) -> dict[str, float]:
        """After each step that was taken: what its number is to be told with; nothing where it is none's turn."""

    def state(self) -> dict[str, Any]:
        """JSON: where this rank's data stand."""

    def out_of_memory(self, exc: BaseException) -> OutOfMemory | None:
        """What a failed allocation means for whoever chose the sizes; None where the exception is none."""


@dataclass(kw_only=True)
class Training:
    """One run of one stage. `origin` is saved in every checkpoint: what the run was made from."""

    job: JobContext
    run: str
    stage: str
    model: GPT
    optimizer: MuonAdamW
    tokenizer: Tokenizer
    objective: Objective
    num_steps: int
    schedule: Schedule
    evaluations: Sequence[Evaluation]
    save_every: int
    origin: dict[str, Any]
    loss_scale: LossScale | None = None  # float16 alone needs one
    position: Position = field(default_factory=Position)
    peers: Peers = ALONE
    keep_last: int | None = None
    criterion: Criterion = Criterion()
    saved_step: int = 0  # the newest step with a checkpoint; before the first step there is nothing to save
    tokens: int = 0  # learnt from so far

    def resume(self, saved: Checkpoint) -> None:
        """Go on where a checkpoint of this run stands. The state of its data is the objective's business."""
        assert saved.optimizer_tensors is not None, "training checkpoints hold the optimizer"
        load_tensors(self.model, saved.model_tensors)
        self.optimizer.load_state_tensors(saved.optimizer_tensors)
        self.position = Position.of(saved.state["position"])
        if self.loss_scale is not None and saved.state.get("loss_scale"):
            self.loss_scale = LossScale(**saved.state["loss_scale"])
        self.saved_step = self.position.step
        self.tokens = saved.state["tokens"]


def train(training: Training) -> Outcome:
    """Run to the last step; the output is the last checkpoint's id.

    Raises Stopped, after a checkpoint, where a signal came; TrainingDiverged after ten steps in a row without a finite
    loss and gradient; OSError where a checkpoint could not be written; OutOfMemory.
    """
    saver = Saver(training.job, training.run, training.stage, training.tokenizer, training.peers, training.keep_last)
    with saver:
        return _train(training, saver)


def _train(training: Training, saver: Saver) -> Outcome:
    first_step = training.position.step
    progress, stop = training.job.progress, training.job.stop
    report_setup(training.job, training.model, training.objective.sequence_len)
    _hold_garbage_collection()
    try:
        while True:
            step, is_last = training.position.step, training.position.step >= training.num_steps
            progress.progress(step, training.num_steps, training.tokens, force=step == first_step)
            if is_last or _is_due(step, training.save_every):
                _save(training, saver)
            _evaluate(training, saver, is_last)
            stop.check()
            if is_last:
                saver.wait()
                output = checkpoint_id(training.run, training.stage, step)
                return Outcome(output=output, values=training.position.metrics)
            saver.check()
            start = time.monotonic()
            _step(training)
            training.position.train_seconds += time.monotonic() - start
            if step == first_step:
                progress.paused()  # compiling, first touch of memory: not the speed of the steps to come
    except Stopped:
        _save(training, saver)
        saver.wait()
        raise
    except (MemoryError, RuntimeError) as exc:
        explained = training.objective.out_of_memory(exc)
        if explained is None:
            raise
        raise explained from exc
    finally:
        gc.unfreeze()
        gc.enable()


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step > 0 and step % every == 0


def _step(training: Training) -> None:
    """One update, unless its loss or its gradient is not finite."""
    position, optimizer = training.position, training.optimizer
    apply_schedule(training.schedule, optimizer.groups, position.step)
    scale = training.loss_scale
    part = training.objective.accumulate(position.step, 1.0 if scale is None else scale.value)
    if scale is not None:
        scale.unscale(_gradients(optimizer))
    is_finite = math.isfinite(part.loss) and math.isfinite(_gradient_norm(optimizer))
    loss, num_bad = training.peers.sum([part.loss / training.peers.world_size, not is_finite])
    if scale is not None:
        scale.update(num_bad == 0)
    if num_bad == 0:
        if part.has_signal:
            optimizer.step()
        position.num_skipped_in_a_row = 0
        _report(training, loss)
    else:
        _skip(position, loss)
    optimizer.zero_grad()
    position.step += 1
    training.tokens += part.num_tokens
    if position.step % _COLLECT_EVERY == 0:
        gc.collect()


def _gradients(optimizer: MuonAdamW) -> list[Tensor]:
    return [p.grad for group in optimizer.groups for p in group.parameters if p.grad is not None]


def _gradient_norm(optimizer: MuonAdamW) -> float:
    return float(torch.nn.utils.get_total_norm(_gradients(optimizer)))


def _skip(position: Position, loss: float) -> None:
    """Leave out a step. Raises TrainingDiverged when it was one too many in a row."""
    position.num_skipped += 1
    position.num_skipped_in_a_row += 1
    log.warning("step_skipped", extra={"step": position.step, "loss": str(loss)})
    if position.num_skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
        raise TrainingDiverged(
            f"the loss or its gradient was not finite for {MAX_SKIPPED_IN_A_ROW} steps in a row, the last at step "
            f"{position.step} (loss {loss}). Lower the learning rates, or resume_from an earlier checkpoint."
        )


def _report(training: Training, loss: float) -> None:
    position = training.position
    values = training.objective.report(position, loss)
    if not values:
        return
    values |= {
        "learning_rate": _matrix_rate(training.optimizer),
        "num_skipped_steps": float(position.num_skipped),
        "train_seconds": position.train_seconds,
    }
    if training.loss_scale is not None:
        values["loss_scale"] = training.loss_scale.value
    training.job.progress.metrics(position.step, values)
    told = {name: round(value, 4) for name, value in values.items()}
    log.info("step", extra={"step": position.step, "of": training.num_steps, **told})


def _matrix_rate(optimizer: MuonAdamW) -> float:
    """Of the matrices, as the schedule has set it: the other groups' rates are multiples of it that stay the same."""
    return next(group.lr for group in optimizer.groups if group.rule == "muon")


def _save(training: Training, saver: Saver) -> None:
    """Begin a checkpoint, unless this step has one already."""
    position = training.position
    if position.step == training.saved_step:
        return
    state = {
        "step": position.step,
        "tokens": training.tokens,
        "metrics": position.metrics,
        "position": asdict(position),
        "loss_scale": None if training.loss_scale is None else asdict(training.loss_scale),
        **training.origin,
    }
    best = () if position.best_step is None else (position.best_step,)
    saver.save(position.step, training.model, training.optimizer, state, training.objective.state(), kept_steps=best)
    training.saved_step = position.step
    training.job.progress.paused()


def _evaluate(training: Training, saver: Saver, is_last: bool) -> None:
    """What is due at this step; its checkpoint is told."""
    position, step = training.position, training.position.step
    for evaluation in training.evaluations:
        if not (is_last or _is_due(step, evaluation.every) or (step == 0 and evaluation.is_first)):
            continue
        training.model.eval()
        values = evaluation.measure()
        training.model.train()
        position.metrics.update(values)
        if values and 0 < step == training.saved_step:
            saver.add_metrics(step, values)
            value = values.get(training.criterion.metric)
            if value is not None and training.criterion.is_better(value, position.best_value):
                position.best_value, position.best_step = value, step
        training.job.progress.metrics(step, values)
        training.job.progress.paused()
        log.info("evaluated", extra={"step": step, **values})


def _hold_garbage_collection() -> None:
    """The collector would walk millions of long-lived objects in the middle of steps; it runs now and then instead."""
    gc.collect()
    gc.freeze()
    gc.disable()
