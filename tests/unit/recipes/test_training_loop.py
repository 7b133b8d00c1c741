"""The loop on a tiny model: order of saving and judging, accumulation, steps left out, stopping."""

import contextlib
import gc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from nanochat.checkpoint import manifest, store
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


def test_seconds_of_training_are_those_of_steps_alone_and_go_on_with_the_run(
    make: Callable[..., Training], job: JobContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A step takes two seconds by this clock, an evaluation a thousand."""
    now = 0.0
    monkeypatch.setattr(training_loop, "time", SimpleNamespace(monotonic=lambda: now))

    def pass_time(seconds: float) -> bool:
        nonlocal now
        now += seconds
        return False

    def measure() -> dict[str, float]:
        pass_time(1000.0)
        return {"val_bpb": 1.0}

    for num_steps, saved in ((4, None), (7, "one/sft/step_000004")):
        training = make(num_steps=num_steps, evaluations=[Evaluation(measure=measure, every=2)])
        training.model.is_bad = lambda n: pass_time(2.0)  # type: ignore[method-assign, assignment]
        if saved is not None:
            training.resume(store.load(manifest.find(tmp_path, saved).folder, with_optimizer=True))
        train(training)
    told = [line.values["train_seconds"] for line in lines(job) if "train_seconds" in getattr(line, "values", ())]
    assert told == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0]  # before each step
    assert training.position.train_seconds == 14.0
    saved_position = manifest.read_state(manifest.find(tmp_path, "one/sft/step_000007").folder)["position"]
    assert saved_position["train_seconds"] == 14.0


@pytest.mark.parametrize("error", [None, ValueError, Stopped])
def test_the_garbage_collector_is_held_off_in_steps_and_let_go_however_they_end(
    make: Callable[..., Training], error: type[Exception] | None
) -> None:
    training = make(num_steps=3)
    seen: list[tuple[bool, bool]] = []

    def look(n: int) -> bool:
        seen.append((gc.isenabled(), gc.get_freeze_count() > 0))
        if n == 2 and error is not None:
            raise error
        return False

    training.model.is_bad = look  # type: ignore[method-assign, assignment]
    assert gc.isenabled()
    with contextlib.nullcontext() if error is None else pytest.raises(error):
        train(training)
    assert seen == [(False, True)] * 3
    assert gc.isenabled() and gc.get_freeze_count() == 0


def test_garbage_is_collected_now_and_then(make: Callable[..., Training], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_loop, "_COLLECT_EVERY", 2)
    training = make(num_steps=6)
    num_steps_before: list[int] = []
    monkeypatch.setattr(gc, "collect", lambda: num_steps_before.append(training.position.step))
    train(training)
    assert num_steps_before == [0, 2, 4, 6]
