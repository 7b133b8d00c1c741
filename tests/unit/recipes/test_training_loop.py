"""The loop on a tiny model: order of saving and judging, accumulation, steps left out, stopping."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from nanochat.checkpoint import manifest
from nanochat.config import GPTConfig
from nanochat.data.loader import Batch, Loader
from nanochat.errors import TrainingDiverged
from nanochat.model.gpt import GPT
from nanochat.model.init import init_weights
from nanochat.model.names import named_parameters, named_tensors
from nanochat.optim.groups import param_groups
from nanochat.optim.optimizer import MuonAdamW
from nanochat.optim.schedule import SftSchedule
from nanochat.protocol.progress import CheckpointWritten, Metric, progress_line
from nanochat.recipes import training_loop
from nanochat.recipes.batch import BatchSizes
from nanochat.recipes.job import JobContext, progress_path
from nanochat.recipes.stop import Stopped
from nanochat.recipes.training_loop import Evaluation, Training, train
from nanochat.tokenizer.bpe import Tokenizer

T = 16


class Batches:
    """A loader of random rows whose n-th batch is always the same; some targets are ignored."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.num_given = 0

    def __next__(self) -> Batch:
        generator = torch.Generator().manual_seed(self.num_given)
        self.num_given += 1
        ids = torch.randint(0, 256, (self.batch_size, T + 1), generator=generator)
        targets = ids[:, 1:].clone()
        targets[0, : 3 + self.num_given % 5] = -1
        return Batch(ids[:, :-1].contiguous(), targets, {})

    def state(self) -> dict[str, Any]:
        return {"num_given": self.num_given}


class Poisoned(GPT):
    """Its loss is not a number where `is_bad(n)` for the n-th forward."""

    is_bad: Callable[[int], bool] = staticmethod(lambda n: False)
    num_forwards = 0

    def forward(self, token_ids: Tensor, targets: Tensor | None = None, reduction: str = "mean") -> Tensor:
        self.num_forwards += 1
        loss = super().forward(token_ids, targets, reduction)
        return loss * float("nan") if self.is_bad(self.num_forwards - 1) else loss


@pytest.fixture(autouse=True)
def quick_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_loop, "peak_flops", lambda device: None)


@pytest.fixture
def make(job: JobContext, tokenizer: Tokenizer) -> Callable[..., Training]:
    def build(*, rows: int = 4, micro_steps: int = 1, num_steps: int = 4, **values: Any) -> Training:
        config = GPTConfig(
            sequence_len=T,
            vocab_size=tokenizer.vocab_size,
            n_layer=2,
            n_head=1,
            n_kv_head=1,
            n_embd=32,
            window_pattern="L",
        )
        model = Poisoned(config)
        init_weights(model, torch.Generator().manual_seed(0))
        settings: dict[str, Any] = {"evaluations": [], "save_every": 0, "origin": {"job_id": "job_1"}, **values}
        return Training(
            job=job,
            run="one",
            stage="sft",
            model=model,
            optimizer=MuonAdamW(param_groups(model)),
            tokenizer=tokenizer,
            loader=cast(Loader, Batches(rows)),
            sizes=BatchSizes(sequence_len=T, device_batch_size=rows, num_micro_steps=micro_steps),
            num_steps=num_steps,
            schedule=SftSchedule(num_steps=num_steps),
            **settings,
        )

    return build


def lines(job: JobContext) -> list[Any]:
    return [progress_line.validate_json(line) for line in progress_path(job.spec).read_text().splitlines()]


def weights(training: Training) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in named_tensors(training.model).items()}


def test_the_output_is_the_checkpoint_of_the_last_step(make: Callable[..., Training], tmp_path: Path) -> None:
    outcome = train(make(num_steps=3))
    assert outcome.output == "one/sft/step_000003"
    info = manifest.find(tmp_path, "one/sft/step_000003")
    assert info.metrics["train_loss"] == outcome.values["train_loss"]
    manifest.verify(info.folder)


def test_a_checkpoint_is_written_before_each_evaluation_of_its_step(
    make: Callable[..., Training], job: JobContext
) -> None:
    train(make(num_steps=4, save_every=2, evaluations=[Evaluation(measure=lambda: {"val_bpb": 1.0}, every=2)]))
    events = [
        (line.type, line.step)
        for line in lines(job)
        if isinstance(line, CheckpointWritten) or (isinstance(line, Metric) and "val_bpb" in line.values)
    ]
    assert events == [("checkpoint", 2), ("metric", 2), ("checkpoint", 4), ("metric", 4)]


def test_an_evaluation_that_fails_at_the_end_costs_no_step(make: Callable[..., Training], tmp_path: Path) -> None:
    def fail() -> dict[str, float]:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        train(make(num_steps=3, evaluations=[Evaluation(measure=fail, every=0)]))
    assert manifest.find(tmp_path, "one/sft").step == 3


def test_micro_batches_weigh_by_their_counted_targets(make: Callable[..., Training]) -> None:
    """Two micro-batches with different numbers of targets give the gradient of one batch of both."""
    parts, whole = make().model, make().model
    source = Batches(2)
    first, second = next(source), next(source)
    assert int((first.targets >= 0).sum()) != int((second.targets >= 0).sum())
    joined = Batch(torch.cat([first.inputs, second.inputs]), torch.cat([first.targets, second.targets]), {})
    loss = training_loop._accumulate(parts, [first, second])
    assert loss == pytest.approx(training_loop._accumulate(whole, [joined]), rel=1e-5)
    assert loss == pytest.approx(float(whole(joined.inputs, joined.targets).detach()), rel=1e-5)
    for name, parameter in named_parameters(parts).items():
        expected = named_parameters(whole)[name].grad
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-3, atol=1e-6)  # sums in another order


def test_a_step_whose_loss_is_not_finite_is_left_out_and_counted(
    make: Callable[..., Training], job: JobContext
) -> None:
    training = make(num_steps=6)
    training.model.is_bad = lambda n: n in (2, 3)  # type: ignore[method-assign, assignment]
    before: dict[int, dict[str, Tensor]] = {}
    for step in range(6):
        before[step] = weights(training)
        training_loop._step(training, None)
    assert training.position.num_skipped == 2 and training.position.num_skipped_in_a_row == 0
    assert all(torch.equal(before[2][name], tensor) for name, tensor in before[4].items())
    assert not torch.equal(before[4]["head"], before[5]["head"])
    assert all(bool(tensor.isfinite().all()) for tensor in weights(training).values())
    assert lines(job)[-1].values["num_skipped_steps"] == 2


def test_a_gradient_that_is_not_finite_leaves_out_the_step(make: Callable[..., Training]) -> None:
    training = make()
    training.model.head.weight.register_hook(lambda grad: grad * float("inf"))
    before = weights(training)
    training_loop._step(training, None)
    assert training.position.num_skipped == 1
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(training).items())


def test_ten_bad_steps_in_a_row_end_the_run_and_nine_do_not(make: Callable[..., Training]) -> None:
    survivor = make(num_steps=12)
    survivor.model.is_bad = lambda n: 1 <= n <= 9  # type: ignore[method-assign, assignment]
    train(survivor)
    assert survivor.position.num_skipped == 9
    training = make(num_steps=30)
    training.model.is_bad = lambda n: n >= 5  # type: ignore[method-assign, assignment]
    with pytest.raises(TrainingDiverged, match="10 steps in a row, the last at step 14"):
        train(training)


def test_a_signal_stops_after_the_step_with_a_checkpoint(make: Callable[..., Training], tmp_path: Path) -> None:
    training = make(num_steps=50)

    def bad(n: int) -> bool:
        if n == 6:
            training.job.stop.is_set = True
        return False

    training.model.is_bad = bad  # type: ignore[method-assign, assignment]
    with pytest.raises(Stopped):
        train(training)
    assert manifest.find(tmp_path, "one/sft").step == 7


def test_a_signal_in_an_evaluation_does_not_save_the_same_step_twice(
    make: Callable[..., Training], job: JobContext
) -> None:
    def measure() -> dict[str, float]:
        raise Stopped

    with pytest.raises(Stopped):
        train(make(num_steps=5, save_every=2, evaluations=[Evaluation(measure=measure, every=2)]))
    assert [line.step for line in lines(job) if isinstance(line, CheckpointWritten)] == [2]
