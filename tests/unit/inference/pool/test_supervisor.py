"""When a worker counts as hanging: by its beats, by its steps while it has work, and by what it loads first."""

import asyncio

from nanochat_inference.pool.frames import Beat
from nanochat_inference.pool.supervisor import Supervisor
from nanochat_inference.pool.worker import Worker

from .conftest import Stage

TIMEOUT_S = 30.0


def hangs(stage: Stage, later_s: float) -> str:
    supervisor = Supervisor(stage.workers[0], stage.pool, timeout_s=TIMEOUT_S, beat_interval_s=1.0)
    return supervisor._hangs(asyncio.get_running_loop().time() + later_s)


async def test_one_that_says_nothing_hangs_whether_it_has_work_or_not(stage: Stage) -> None:
    assert hangs(stage, TIMEOUT_S - 1) == ""
    assert "said nothing" in hangs(stage, TIMEOUT_S + 1)


async def test_one_that_beats_and_makes_no_step_hangs_where_it_has_work(stage: Stage) -> None:
    worker = stage.workers[0]
    stage.says(0, Beat(progress=5, metrics=[]))
    worker.went_on_at -= TIMEOUT_S
    stage.says(0, Beat(progress=5, metrics=[]))
    assert hangs(stage, 1) == "", "nothing to do is no reason"
    stage.ask()
    assert hangs(stage, 1) == "", "its time begins with its work"
    worker.went_on_at -= TIMEOUT_S
    assert "no step" in hangs(stage, 1)
    stage.says(0, Beat(progress=6, metrics=[]))
    assert hangs(stage, 1) == ""


async def test_one_that_loads_may_be_silent_no_longer(stage: Stage) -> None:
    loading(stage)
    assert "said nothing" in hangs(stage, TIMEOUT_S + 1)


async def test_one_that_beats_and_does_not_go_on_with_its_first_load_hangs(stage: Stage) -> None:
    worker = loading(stage)
    worker.served = None
    stage.says(0, Beat(progress=0, load_progress=5, metrics=[]))
    worker.load_went_on_at -= TIMEOUT_S
    stage.says(0, Beat(progress=0, load_progress=5, metrics=[]))
    assert "did not go on" in hangs(stage, 1)
    stage.says(0, Beat(progress=0, load_progress=6, metrics=[]))
    assert hangs(stage, 1) == ""


async def test_a_load_that_hangs_beside_what_is_served_ends_nothing(stage: Stage) -> None:
    loading(stage).load_went_on_at -= TIMEOUT_S
    assert hangs(stage, 1) == ""


def loading(stage: Stage) -> Worker:
    worker = stage.workers[0]
    worker._loading = asyncio.get_running_loop().create_future()
    return worker
