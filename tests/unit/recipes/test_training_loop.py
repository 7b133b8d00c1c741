"""The loop on a tiny model: order of saving and judging, accumulation, steps left out, stopping."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nanochat.checkpoint import manifest
from nanochat.data.loader import Batch
from nanochat.errors import TrainingDiverged
from nanochat.model.names import named_parameters
from nanochat.protocol.progress import CheckpointWritten
from nanochat.recipes import training_loop
from nanochat.recipes.job import JobContext
from nanochat.recipes.next_token import accumulate
from nanochat.recipes.stop import Stopped
from nanochat.recipes.training_loop import Evaluation, Training, train

from .tiny_training import Batches, lines, weights


def test_the_output_is_the_checkpoint_of_the_last_step(make: Callable[..., Training], tmp_path: Path) -> None:
    outcome = train(make(num_steps=3))
    assert outcome.output == "one/sft/step_000003"
    info = manifest.find(tmp_path, "one/sft/step_000003")
    assert info.metrics["train_loss"] == outcome.values["train_loss"]
    manifest.verify(info.folder)


def test_a_step_is_saved_once_and_told_what_was_measured_at_it(
    make: Callable[..., Training], job: JobContext, tmp_path: Path
) -> None:
    values = iter([1.5, 1.25])
    measure = Evaluation(measure=lambda: {"val_bpb": next(values)}, every=2)
    train(make(num_steps=4, save_every=2, evaluations=[measure]))
    assert [line.step for line in lines(job) if isinstance(line, CheckpointWritten)] == [2, 4]
    measured = [manifest.find(tmp_path, f"one/sft/step_00000{step}").metrics["val_bpb"] for step in (2, 4)]
    assert measured == [1.5, 1.25]


@pytest.mark.parametrize("every", [0, 2])
def test_an_evaluation_that_fails_costs_no_step(make: Callable[..., Training], tmp_path: Path, every: int) -> None:
    def fail() -> dict[str, float]:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        train(make(num_steps=3, save_every=every, evaluations=[Evaluation(measure=fail, every=every)]))
    assert manifest.find(tmp_path, "one/sft").step == (every or 3)


def test_micro_batches_weigh_by_their_counted_targets(make: Callable[..., Training]) -> None:
    """Two micro-batches with different numbers of targets give the gradient of one batch of both."""
    parts, whole = make().model, make().model
    source = Batches(2)
    first, second = next(source), next(source)
    assert int((first.targets >= 0).sum()) != int((second.targets >= 0).sum())
    joined = Batch(torch.cat([first.inputs, second.inputs]), torch.cat([first.targets, second.targets]), {})
    loss = accumulate(parts, [first, second])
    assert loss == pytest.approx(accumulate(whole, [joined]), rel=1e-5)
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
        training_loop._step(training)
    assert training.position.num_skipped == 2 and training.position.num_skipped_in_a_row == 0
    assert all(torch.equal(before[2][name], tensor) for name, tensor in before[4].items())
    assert not torch.equal(before[4]["head"], before[5]["head"])
    assert all(bool(tensor.isfinite().all()) for tensor in weights(training).values())
    assert lines(job)[-1].values["num_skipped_steps"] == 2


def test_a_gradient_that_is_not_finite_leaves_out_the_step(make: Callable[..., Training]) -> None:
    training = make()
    training.model.head.weight.register_hook(lambda grad: grad * float("inf"))
    before = weights(training)
    training_loop._step(training)
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
