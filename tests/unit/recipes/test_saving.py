"""Checkpoints behind the training step: what is in them, who waits, what fails, which ones stay."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from nanochat.checkpoint import manifest, store
from nanochat.jobs.database import Database
from nanochat.jobs.models import ModelStore
from nanochat.protocol.progress import CheckpointWritten
from nanochat.recipes.job import JobContext
from nanochat.recipes.protected import protected_checkpoints
from nanochat.recipes.stop import Stopped
from nanochat.recipes.training_loop import Criterion, Evaluation, Position, Training, train

from .tiny_training import lines, weights

DEADLINE_S = 60


def steps_left(home: Path) -> list[int]:
    return sorted(info.step for info in manifest.list_checkpoints(home))


def at_forward(training: Training, hooks: dict[int, Callable[[], None]]) -> None:
    """Call a hook before the n-th forward, the n-th step's only one."""

    def before(n: int) -> bool:
        hooks.get(n, lambda: None)()
        return False

    training.model.is_bad = before  # type: ignore[assignment]


def test_steps_go_on_while_a_checkpoint_waits_for_the_disk_and_it_holds_what_was_at_its_own(
    make: Callable[..., Training], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    training = make(num_steps=6, save_every=2)
    is_step_3_taken = threading.Event()
    real_save = store.save

    def slow_save(*values: Any, **options: Any) -> str:
        assert is_step_3_taken.wait(DEADLINE_S)
        return real_save(*values, **options)

    monkeypatch.setattr(store, "save", slow_save)
    seen: dict[str, Tensor] = {}
    moments: dict[str, Tensor] = {}

    def remember() -> None:
        seen.update(weights(training))
        moments.update({name: tensor.clone() for name, tensor in training.optimizer.state_tensors().items()})

    at_forward(training, {2: remember, 3: is_step_3_taken.set})
    train(training)
    saved = store.load(tmp_path / "checkpoints" / "one" / "sft" / "step_000002", with_optimizer=True)
    assert saved.optimizer_tensors is not None
    assert all(saved.model_tensors[name].equal(tensor) for name, tensor in seen.items())
    assert all(saved.optimizer_tensors[name][...].equal(tensor) for name, tensor in moments.items())
    assert saved.state["position"]["step"] == 2
    assert saved.state["loader"] == [{"num_given": 2}]


def test_one_checkpoint_is_written_at_a_time(make: Callable[..., Training], monkeypatch: pytest.MonkeyPatch) -> None:
    real_save, num_at_once, most = store.save, 0, 0

    def counting_save(*values: Any, **options: Any) -> str:
        nonlocal num_at_once, most
        num_at_once += 1
        most = max(most, num_at_once)
        identity = real_save(*values, **options)
        num_at_once -= 1
        return identity

    monkeypatch.setattr(store, "save", counting_save)
    train(make(num_steps=6, save_every=1))
    assert most == 1


@pytest.mark.parametrize("save_every", [2, 0])
def test_a_checkpoint_that_cannot_be_written_fails_the_run(
    make: Callable[..., Training], monkeypatch: pytest.MonkeyPatch, job: JobContext, save_every: int
) -> None:
    def full(*values: Any, **options: Any) -> str:
        raise OSError("no space left on device")

    monkeypatch.setattr(store, "save", full)
    with pytest.raises(OSError, match="no space left"):
        train(make(num_steps=4, save_every=save_every))
    assert not [line for line in lines(job) if isinstance(line, CheckpointWritten)]


def test_a_stop_waits_for_its_checkpoint(make: Callable[..., Training], tmp_path: Path) -> None:
    training = make(num_steps=50)
    at_forward(training, {3: lambda: setattr(training.job.stop, "is_set", True)})
    with pytest.raises(Stopped):
        train(training)
    manifest.verify(manifest.find(tmp_path, "one/sft/step_000004").folder)


def test_the_newest_stay_and_the_best(make: Callable[..., Training], tmp_path: Path) -> None:
    values = iter([3.0, 2.0, 2.5, 2.2, 2.1, 2.4])
    measure = Evaluation(measure=lambda: {"val_bpb": next(values)}, every=1)
    train(make(num_steps=6, save_every=1, keep_last=2, evaluations=[measure]))
    assert steps_left(tmp_path) == [2, 5, 6]
    assert manifest.find(tmp_path, "one/sft/step_000002").metrics["val_bpb"] == 2.0


def test_the_best_is_the_highest_where_higher_is_better_and_the_first_of_equals(
    make: Callable[..., Training], tmp_path: Path
) -> None:
    values = iter([0.0, 0.5, 0.5, 0.25, float("nan")])
    measure = Evaluation(measure=lambda: {"spelling_accuracy": next(values), "val_bpb": 1.0}, every=1)
    criterion = Criterion(metric="spelling_accuracy", is_higher_better=True)
    train(make(num_steps=5, save_every=1, keep_last=1, evaluations=[measure], criterion=criterion))
    assert steps_left(tmp_path) == [2, 5]


def test_without_keep_last_all_stay(make: Callable[..., Training], tmp_path: Path) -> None:
    train(make(num_steps=3, save_every=1))
    assert steps_left(tmp_path) == [1, 2, 3]


def test_what_is_served_and_what_others_begin_with_stays(make: Callable[..., Training], tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'nanochat.db'}")
    database.upgrade()
    models = ModelStore(database)
    models.promote("nanochat", "one/sft/step_000001")
    models.promote("nanochat", "one/sft/step_000002")  # the first can be rolled back to
    models.promote("other", "elsewhere/sft/step_000001")
    database.close()
    folder = tmp_path / "jobs" / "job_2"
    folder.mkdir(parents=True)
    config = {"checkpoint": str(tmp_path / "checkpoints" / "one" / "sft" / "step_000004")}
    (folder / "spec.json").write_text(json.dumps({"kind": "sft", "config": config}))
    train(make(num_steps=7, save_every=1, keep_last=1))
    assert steps_left(tmp_path) == [1, 2, 4, 7]
    child = make(num_steps=1)
    child.run, child.origin = "child", {"job_id": "job_3", "base": "one/sft/step_000003"}
    train(child)
    assert protected_checkpoints(tmp_path, "one", "sft") == {f"one/sft/step_00000{step}" for step in (1, 2, 3, 4)}


def test_nothing_goes_while_the_database_does_not_say_what_is_served(
    make: Callable[..., Training], tmp_path: Path
) -> None:
    (tmp_path / "nanochat.db").touch()  # without a table
    train(make(num_steps=3, save_every=1, keep_last=1))
    assert steps_left(tmp_path) == [1, 2, 3]


def test_a_checkpoint_from_before_there_were_criteria_says_which_was_the_best() -> None:
    saved = {"step": 6, "best_val_bpb": 1.5, "best_step": 4}
    assert Position.of(saved) == Position(step=6, best_value=1.5, best_step=4)
    assert Position.of({"step": 6, "best_val_bpb": None, "best_step": None}) == Position(step=6)
