"""Reinforcement learning from a job's spec to its checkpoint: on one rank and on two, stopped and gone on with."""

import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file

from nanochat.checkpoint import manifest
from nanochat.evals.chat import ChatScore
from nanochat.protocol.progress import Failure, Metric, Progress, Result
from nanochat.recipes import rl
from nanochat.tasks.counting import Counting

from .conftest import Line, Workshop
from .easy_rewards import make_easy
from .test_resume import LONG, StopAfter, assert_equal_checkpoints, wait, wait_for_steps

BASE = "base/pretrain/step_000008"
SPEED = "rollout_tokens_per_second"


@pytest.fixture
def easy(monkeypatch: pytest.MonkeyPatch) -> None:
    make_easy(monkeypatch)


def metrics(lines: list[Line], name: str) -> dict[int, float]:
    return {line.step: line.values[name] for line in lines if isinstance(line, Metric) and name in line.values}


def weights(workshop: Workshop, checkpoint: str) -> dict[str, Any]:
    return load_file(workshop.home / "checkpoints" / checkpoint / "model.safetensors")


@pytest.mark.usefixtures("easy")
def test_a_run_tells_of_every_step_and_judges_itself_at_both_ends(workshop: Workshop) -> None:
    ran = workshop.run(workshop.rl("told", save_every=3))
    assert ran.result.output == "told/rl/step_000006"
    assert ran.checkpoints == ["told/rl/step_000003", "told/rl/step_000006"]
    for name in ("reward", "answer_tokens", "cut_ratio", "pass_ratio", "mixed_ratio", SPEED, "train_seconds"):
        assert list(metrics(ran.lines, name)) == list(range(6)), name
    assert 0 < max(metrics(ran.lines, "mixed_ratio").values()) <= 1
    for name in ("counting_accuracy", "counting_pass_at_1", "counting_pass_at_2"):
        assert list(metrics(ran.lines, name)) == [0, 6], name
    info = manifest.find(workshop.home, "told/rl")
    assert info.metrics == {name: value for name, value in ran.result.values.items() if name in info.metrics}
    assert {"reward", "counting_accuracy", "counting_pass_at_2"} <= info.metrics.keys()
    state, base = workshop.state("told/rl/step_000006"), workshop.state(BASE)
    assert state["base"] == BASE
    assert (state["rates"], state["batch"]) == (base["rates"], base["batch"])
    sampled = [line.tokens for line in ran.lines if isinstance(line, Progress)]
    assert state["tokens"] == sampled[-1] > 6 * 16  # at least a token an answer
    before, after = weights(workshop, BASE), weights(workshop, "told/rl/step_000006")
    assert not before["layer.0.query"].equal(after["layer.0.query"])


@pytest.mark.usefixtures("easy")
@pytest.mark.parametrize("num_checks", [4, 5])  # before a step, and when its answers are sampled
def test_a_stopped_run_ends_where_an_uninterrupted_one_does(workshop: Workshop, num_checks: int) -> None:
    name = f"rl-stopped-{num_checks}"
    straight = workshop.run(workshop.rl(f"rl-straight-{num_checks}")).result
    stopped = workshop.run(workshop.rl(name), StopAfter(num_checks))
    assert stopped.exit_code == 75
    assert len(stopped.checkpoints) == 1
    assert 0 < manifest.find(workshop.home, stopped.checkpoints[0]).step < 6
    resumed = workshop.run(workshop.rl(name, attempt=2)).result
    folder = workshop.home / "checkpoints"
    assert_equal_checkpoints(folder / str(straight.output), folder / str(resumed.output))
    same = straight.values.keys() - {SPEED, "train_seconds"}
    assert {key: straight.values[key] for key in same} == {key: resumed.values[key] for key in same}


@pytest.mark.usefixtures("easy")
def test_the_checkpoint_with_the_most_right_answers_stays(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two held-out questions: before the first step, then after each."""
    num_right = iter([2.0, 0.0, 2.0, 1.0, 1.0])
    monkeypatch.setattr(rl, "score_generated", lambda *_: ChatScore(num_right=next(num_right), num_examples=2))
    config = {"num_iterations": 4, "save_every": 1, "eval_every": 1, "eval_samples": 0, "keep_last": 1}
    ran = workshop.run(workshop.rl("best", **config))
    assert ran.checkpoints == [f"best/rl/step_00000{step}" for step in (1, 2, 3, 4)]
    left = [info for info in manifest.list_checkpoints(workshop.home) if info.run == "best"]
    accuracy = {info.step: info.metrics["counting_accuracy"] for info in left}
    assert accuracy == {2: 1.0, 4: 0.5}


@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_answers_that_all_deserve_the_same_move_no_weight(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, reward: float
) -> None:
    monkeypatch.setattr(Counting, "reward", lambda self, conversation, text: reward)
    name = f"all-{reward:.0f}"
    ran = workshop.run(workshop.rl(name, num_iterations=2))
    assert metrics(ran.lines, "reward") == {0: reward, 1: reward}
    assert metrics(ran.lines, "mixed_ratio") == {0: 0.0, 1: 0.0}
    before, after = weights(workshop, BASE), weights(workshop, f"{name}/rl/step_000002")
    assert all(before[name].equal(after[name]) for name in before)


@pytest.mark.usefixtures("easy")
def test_an_evaluation_and_fine_tuning_take_what_it_leaves(workshop: Workshop) -> None:
    output = str(workshop.run(workshop.rl("left", num_iterations=1)).result.output)
    config = {"evals": ["chat"], "tasks": ["counting"]}
    judged = workshop.run(workshop.evaluate("judge-rl", checkpoint=output, **config)).result.values
    assert judged["counting_accuracy"] == metrics(workshop.lines(workshop.rl("left")), "counting_accuracy")[1]
    tuned = workshop.run(workshop.sft("tuned", checkpoint=str(workshop.home / "checkpoints" / output)))
    assert tuned.result.values["val_bpb"] > 0


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"task": "dancing"}, "task 'dancing' is not known; choose one of"),
        ({"task": "smalltalk"}, "gives no reward; choose one of spelling"),
        ({"num_samples": 1}, "config.num_samples is 1"),
        ({"top_k": 1}, "all answers to a question alike"),
        ({"weight_decay": 0.1}, "no weight decay"),
        ({"max_new_tokens": 128}, "max_new_tokens is 128; the checkpoint's model takes 128 tokens"),
        ({"max_prompt_tokens": 4}, "max_prompt_tokens is 4"),
        ({"checkpoint": "nothing/sft"}, "no complete checkpoint under 'nothing/sft'"),
    ],
)
def test_what_cannot_be_is_refused(workshop: Workshop, config: dict[str, Any], reason: str) -> None:
    ran = workshop.run(workshop.rl("bad-rl", **config))
    assert reason in ran.failure.message
    assert not ran.checkpoints


@pytest.mark.slow
def test_two_ranks_ask_what_one_asks_and_stop_and_go_on_together(workshop: Workshop) -> None:
    long = workshop.rl("rl-pair", num_iterations=LONG, eval_samples=0)
    module = "tests.integration.recipes.easy_rewards"
    process = workshop.start(long, ranks=2, module=module)
    wait_for_steps(workshop, long)
    by_rank: dict[int, psutil.Process] = {}

    def both_are_found() -> bool:
        ranks = psutil.Process(process.pid).children(recursive=True)
        by_rank.update({int(rank.environ()["RANK"]): rank for rank in ranks if "RANK" in rank.environ()})
        return by_rank.keys() == {0, 1}

    wait(both_are_found)
    by_rank[1].send_signal(signal.SIGTERM)
    stopped = workshop.finish(long, process)
    assert not [line for line in stopped.lines if isinstance(line, Failure | Result)]
    (checkpoint,) = stopped.checkpoints
    step = manifest.find(workshop.home, checkpoint).step
    assert len(list(Path(workshop.home, "checkpoints", checkpoint, "optimizer").iterdir())) == 2
    with pytest.MonkeyPatch.context() as patch:
        make_easy(patch)
        alone = workshop.run(workshop.rl("rl-alone", num_iterations=LONG, eval_samples=0), StopAfter(4))
    for name in ("reward", "answer_tokens", "pass_ratio", "counting_accuracy"):
        assert metrics(stopped.lines, name)[0] == metrics(alone.lines, name)[0], name
    again = workshop.rl("rl-pair", num_iterations=step + 2, eval_samples=0, attempt=2)
    ended = workshop.finish(again, workshop.start(again, ranks=2, module=module))
    assert ended.result.output == f"rl-pair/rl/step_{step + 2:06d}"
