"""Processes killed in the middle of a run: it goes on from its last checkpoint, and ends as if nothing had been."""

import random
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file

from nanochat.checkpoint import manifest
from nanochat.cli.ports import any_free_port
from nanochat.protocol.progress import Failure, Progress, Result

from .conftest import Workshop

pytestmark = pytest.mark.slow

NUM_KILLS = 10
NUM_STEPS = 120


def newest_step(workshop: Workshop, run: str) -> int:
    """By names alone, since it is asked often: a folder has its name once it is complete."""
    folders = (workshop.home / "checkpoints" / run / "pretrain").glob("step_*")
    return max((int(folder.name.removeprefix("step_")) for folder in folders), default=0)


def wait_for_step(workshop: Workshop, run: str, step: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 90
    while newest_step(workshop, run) < step:
        assert process.poll() is None, "the run has ended"
        assert time.monotonic() < deadline, f"step {step} was not reached"
        time.sleep(0.005)


def weights(workshop: Workshop, run: str) -> Path:
    return workshop.home / "checkpoints" / run / "pretrain" / f"step_{NUM_STEPS:06d}" / "model.safetensors"


def assert_same_weights(one: Path, other: Path) -> None:
    tensors, others = load_file(one), load_file(other)
    assert [name for name, tensor in tensors.items() if not tensor.equal(others[name])] == []


def test_killed_at_random_steps_a_run_ends_with_the_bits_of_one_that_was_not(workshop: Workshop) -> None:
    config = {"num_iterations": NUM_STEPS, "save_every": 4, "eval_every": 0, "keep_last": 2}
    workshop.run(workshop.pretrain("whole", **config))
    rng = random.Random(7)
    steps = sorted(rng.sample(range(4, NUM_STEPS - 20), NUM_KILLS))
    for attempt, step in enumerate(steps, start=1):
        process = workshop.start(workshop.pretrain("hunted", attempt=attempt, **config))
        wait_for_step(workshop, "hunted", step, process)
        time.sleep(rng.random() / 50)  # within a step, or a checkpoint
        process.kill()
        process.communicate()
    resumed_at = newest_step(workshop, "hunted")
    assert steps[-1] <= resumed_at < NUM_STEPS
    ran = workshop.run(workshop.pretrain("hunted", attempt=NUM_KILLS + 1, **config))
    assert ran.result.output == f"hunted/pretrain/step_{NUM_STEPS:06d}"
    assert next(line.step for line in ran.lines if isinstance(line, Progress)) == resumed_at
    assert_same_weights(weights(workshop, "whole"), weights(workshop, "hunted"))
    assert len(list(weights(workshop, "hunted").parents[1].glob("step_*"))) == 2  # and nothing half written
    assert not list(weights(workshop, "hunted").parents[1].glob(".*writing*"))


def test_two_nodes_go_on_after_a_rank_of_one_was_killed(workshop: Workshop) -> None:
    """Two torchruns that find each other, as on two machines; the one whose rank is killed starts all again."""
    config = {"num_iterations": NUM_STEPS, "save_every": 10, "eval_every": 0, "device_batch_size": 2}
    whole = workshop.run_ranks(workshop.pretrain("whole-pair", **config), 2)
    assert whole.exit_code == 0
    spec = workshop.pretrain("nodes", **config)
    options = [
        "--nnodes=2",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint=127.0.0.1:{any_free_port()}",
        "--rdzv-id=nodes",
        "--local-addr=127.0.0.1",
        "--max-restarts=2",
    ]
    nodes = [workshop.start(spec, ranks=1, options=options) for _ in range(2)]
    try:
        wait_for_step(workshop, "nodes", 20, nodes[0])
        (victim,) = (
            child for child in psutil.Process(nodes[1].pid).children() if "nanochat.recipes" in child.cmdline()
        )
        victim.send_signal(signal.SIGKILL)
        output = [node.communicate(timeout=120)[0] for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    print(*output, sep="\n")
    assert [node.returncode for node in nodes] == [0, 0]
    lines = workshop.lines(spec)
    assert [type(line) for line in lines if isinstance(line, Failure | Result)] == [Result]
    assert any('"event": "resuming"' in text for text in output), "it did not go on from a checkpoint"
    assert manifest.find(workshop.home, "nodes").step == NUM_STEPS
    assert_same_weights(weights(workshop, "whole-pair"), weights(workshop, "nodes"))
