"""A stage's tasks beside the stages before it. What else is refused is in test_jobs_api.py."""

from pathlib import Path

import pytest

from nanochat.errors import DataError
from nanochat.protocol.jobs import Job
from nanochat_trainer.task_checks import TaskChecks


def test_data_that_an_earlier_stage_fetches_need_not_be_there(tmp_path: Path) -> None:
    fetch = Job(id="job_1", kind="dataset", name="d", status="queued", created_at=0.0, config={"name": "gsm8k"})
    TaskChecks(tmp_path, [fetch]).check_rewarded("gsm8k")
    with pytest.raises(DataError, match=r"config\.task: there is no folder .*gsm8k"):
        TaskChecks(tmp_path, []).check_rewarded("gsm8k")
    with pytest.raises(DataError, match=r"config\.tasks: there is no folder .*mmlu"):
        TaskChecks(tmp_path, [fetch]).check_scored("config.tasks", ["spelling", "gsm8k", "mmlu"])


def test_a_benchmark_that_is_for_scores_alone_gives_no_rewards_to_train_on(tmp_path: Path) -> None:
    folder = tmp_path / "datasets" / "humaneval"
    folder.mkdir(parents=True)
    (folder / "HumanEval.jsonl").write_text("")
    TaskChecks(tmp_path, []).check_scored("config.tasks", ["humaneval"])
    with pytest.raises(DataError, match=r"config\.task: task humaneval has no split to train on"):
        TaskChecks(tmp_path, []).check_rewarded("humaneval")
