"""Going on after a stop, a crash or a kill: on a CPU equal, bit for bit, to never having stopped."""

import re
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file

from nanochat.checkpoint import manifest
from nanochat.protocol.jobs import RunSpec
from nanochat.protocol.progress import Progress
from nanochat.recipes.stop import StopSignal

from .conftest import Ran, Workshop

LONG = 100_000  # steps: more than any test waits for


class StopAfter(StopSignal):
    """As if a signal came before the check with this number."""

    def __init__(self, num_checks: int) -> None:
        super().__init__()
        self._num_left = num_checks

    def check(self) -> None:
        self._num_left -= 1
        self.is_set = self.is_set or self._num_left < 0
        super().check()


def assert_equal_checkpoints(one: Path, other: Path) -> None:
    for name in ("model.safetensors", "optimizer/rank_00000.safetensors"):
        tensors, others = load_file(one / name), load_file(other / name)
        assert tensors.keys() == others.keys()
        different = [key for key, tensor in tensors.items() if not tensor.equal(others[key])]
        assert not different, f"{name}: {different}"


@pytest.mark.parametrize(
    ("kind", "config"),
    [("pretrain", {}), ("sft", {}), ("pretrain", {"muon": "light"})],
    ids=["pretrain", "sft", "light"],
)
def test_a_stopped_run_ends_where_an_uninterrupted_one_does(
    workshop: Workshop, kind: str, config: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    name = request.node.callspec.id
    make = partial(getattr(workshop, kind), num_iterations=9, **config)
    straight = workshop.run(make(f"{name}-straight")).result.output
    stopped = workshop.run(make(f"{name}-stopped"), StopAfter(5))
    assert stopped.exit_code == 75
    assert len(stopped.checkpoints) == 1
    assert 0 < manifest.find(workshop.home, stopped.checkpoints[0]).step < 9
    resumed = workshop.run(make(f"{name}-stopped", attempt=2)).result.output
    folder = workshop.home / "checkpoints"
    assert_equal_checkpoints(folder / str(straight), folder / str(resumed))
    state, other = workshop.state(str(straight)), workshop.state(str(resumed))
    assert state["loader"] == other["loader"]
    seconds, other_seconds = state["position"].pop("train_seconds"), other["position"].pop("train_seconds")
    assert seconds > 0 and other_seconds > 0
    assert state["position"] == other["position"]


def test_a_run_that_was_killed_goes_on_from_its_last_saved_step(workshop: Workshop) -> None:
    spec = workshop.pretrain("killed", num_iterations=LONG, save_every=3, eval_every=0)
    process = workshop.start(spec)
    wait_for_checkpoint(workshop, spec)
    process.kill()
    process.communicate()
    step = newest_step(workshop, "killed")
    assert step >= 3
    ran = workshop.run(workshop.pretrain("killed", num_iterations=step + 2, save_every=3, eval_every=0, attempt=2))
    progress = [line.step for line in ran.lines if isinstance(line, Progress)]
    assert progress[0] == step and progress[-1] == step + 2


def test_sigterm_writes_a_checkpoint_and_exits_with_75(workshop: Workshop) -> None:
    spec = workshop.pretrain("terminated", num_iterations=LONG, eval_every=0)
    process = workshop.start(spec)
    wait_for_steps(workshop, spec)
    process.send_signal(signal.SIGTERM)
    ran = workshop.finish(spec, process)
    assert ran.exit_code == 75
    (checkpoint,) = ran.checkpoints
    manifest.verify(workshop.home / "checkpoints" / checkpoint)


def test_a_rank_saves_and_tells_75_when_its_torchrun_is_terminated(workshop: Workshop) -> None:
    spec = workshop.pretrain("group", num_iterations=LONG, eval_every=0)
    process = workshop.start(spec, ranks=1)
    wait_for_steps(workshop, spec)
    process.send_signal(signal.SIGTERM)
    ran = workshop.finish(spec, process)
    assert ran.exit_code != 0
    assert len(ran.checkpoints) == 1


def test_a_rank_dies_with_its_torchrun(workshop: Workshop) -> None:
    spec = workshop.pretrain("orphan", num_iterations=LONG, eval_every=0)
    process = workshop.start(spec, ranks=1)
    wait_for_steps(workshop, spec)
    ranks = psutil.Process(process.pid).children(recursive=True)
    assert ranks
    process.kill()
    _, alive = psutil.wait_procs(ranks, timeout=30)
    for rank in alive:
        rank.kill()
    process.communicate()
    assert not alive


def test_a_damaged_newest_checkpoint_is_passed_over(workshop: Workshop) -> None:
    workshop.run(workshop.pretrain("damaged", num_iterations=6, save_every=3))
    path = workshop.home / "checkpoints" / "damaged" / "pretrain" / "step_000006" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    ran = workshop.run(workshop.pretrain("damaged", num_iterations=6, attempt=2))
    assert first_step(ran) == 3
    assert ran.result.output == "damaged/pretrain/step_000006"
    manifest.verify(path.parent)


def test_a_second_attempt_does_not_take_another_jobs_checkpoint(workshop: Workshop) -> None:
    workshop.run(workshop.pretrain("first", num_iterations=3, run="shared"))
    ran = workshop.run(workshop.pretrain("second", num_iterations=3, run="shared", attempt=2))
    assert first_step(ran) == 0
    ran = workshop.run(workshop.pretrain("third", num_iterations=5, run="shared", resume=True))
    assert first_step(ran) == 3


def test_resuming_with_other_sizes_is_refused(workshop: Workshop) -> None:
    ran = workshop.run(workshop.pretrain("base", resume=True, depth=3))
    assert ran.failure.code == "conflict"
    assert "n_layer 2 and the job asks for 3" in ran.failure.message


def test_resuming_with_another_tokenizer_of_the_same_size_is_refused(workshop: Workshop) -> None:
    other = workshop.run(workshop.tokenizer("other", max_chars=3000)).result.output
    ran = workshop.run(workshop.pretrain("base", resume=True, tokenizer=str(workshop.home / "tokenizers" / str(other))))
    assert ran.failure.code == "conflict"
    assert "base/pretrain/step_000008 was trained with the tokenizer" in ran.failure.message


@pytest.mark.parametrize(
    ("kind", "change", "was"),
    [
        ("sft", {"mixture": [{"task": "spelling"}, {"task": "dialogue", "stop": 100}]}, "300 of spelling"),
        ("rl", {"task": "spelling"}, "100000 of counting"),
    ],
)
def test_resuming_with_other_conversations_is_refused(
    workshop: Workshop, kind: str, change: dict[str, Any], was: str
) -> None:
    make = partial(getattr(workshop, kind), f"{kind}-first", num_iterations=2)
    assert workshop.run(make()).exit_code == 0
    ran = workshop.run(make(attempt=2, **change))
    assert ran.failure.code == "data_error"
    assert re.search(f"it had {was} .* where the job has 100000 of spelling", ran.failure.message)


def first_step(ran: Ran) -> int:
    return next(line.step for line in ran.lines if isinstance(line, Progress))


def newest_step(workshop: Workshop, run: str) -> int:
    info = manifest.newest(workshop.home, run, "pretrain", verified=True)
    return info.step if info else 0


def wait_for_steps(workshop: Workshop, spec: RunSpec, num_steps: int = 2) -> None:
    wait(lambda: any(isinstance(line, Progress) and line.step >= num_steps for line in workshop.lines(spec)))


def wait_for_checkpoint(workshop: Workshop, spec: RunSpec) -> None:
    wait(lambda: newest_step(workshop, spec.name) > 0)


def wait(condition: Callable[[], bool], deadline_s: float = 60.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_a_run_goes_on_from_the_checkpoint_that_is_named(workshop: Workshop) -> None:
    """And ends as the run that it is of, though that has newer ones."""
    straight = workshop.run(workshop.pretrain("origin", num_iterations=6, save_every=2))
    named = workshop.pretrain("branch", num_iterations=6, resume_from="origin/pretrain/step_000002")
    branch = workshop.run(named)
    assert next(line.step for line in branch.lines if isinstance(line, Progress)) == 2
    folders = [manifest.find(workshop.home, ran.result.output).folder for ran in (straight, branch)]
    assert_equal_checkpoints(*folders)


def test_a_named_checkpoint_that_its_run_has_left_behind_asks_for_another_name(workshop: Workshop) -> None:
    workshop.run(workshop.pretrain("behind", num_iterations=4, save_every=2))
    again = workshop.pretrain("again", run="behind", num_iterations=4, resume_from="behind/pretrain/step_000002")
    failure = workshop.run(again).failure
    assert "step_000004" in failure.message and "another `run`" in failure.message
    missing = workshop.run(workshop.pretrain("missing", num_iterations=4, resume_from="behind/pretrain/step_000003"))
    assert "step_000003" in missing.failure.message
