"""Metrics in wandb and trackio: what they are told, and that they can neither be missing nor fail unnoticed."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nanochat.errors import InvalidConfig, Unavailable
from nanochat.protocol.jobs import PretrainConfig, RunSpec
from nanochat.recipes.progress import ProgressWriter
from nanochat.recipes.tracker import start_tracker

# A package of either's interface, which writes down what it is told.
STAND_IN = """
import json, pathlib

def _write(*line):
    with pathlib.Path(__file__).with_suffix(".told").open("a") as file:
        file.write(json.dumps(line) + "\\n")

class Run:
    def log(self, values, step=None):
        if "boom" in values:
            raise ConnectionError("the network is gone")
        _write("log", step, values)

    def finish(self):
        _write("finish")

def init(**options):
    if options["name"] == "refused":
        raise RuntimeError("no API key")
    _write("init", options)
    return Run()
"""


def spec_in(home: Path) -> RunSpec:
    return RunSpec(job_id="job_1", kind="pretrain", name="one", config={}, home=str(home))


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts stand-ins of both packages first on the path; gives what one was told."""
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("wandb", "trackio"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        (tmp_path / f"{name}.py").write_text(STAND_IN)
    yield lambda name: [json.loads(line) for line in (tmp_path / f"{name}.told").read_text().splitlines()]
    for name in ("wandb", "trackio"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_metrics_go_to_the_tracker_and_to_the_file(name: Any, told: Any, tmp_path: Path) -> None:
    config = PretrainConfig(tracker=name, run="mine", depth=2)
    with ProgressWriter(tmp_path / "progress.jsonl") as progress:
        progress.track(start_tracker(config, spec_in(tmp_path)))
        progress.metrics(3, {"train_loss": 2.5, "bad": float("nan")})
    (first, options), logged, finished = told(name)
    assert first == "init"
    assert (options["project"], options["name"], options["resume"]) == ("nanochat", "mine", "allow")
    assert options["config"]["depth"] == 2
    assert options.get("id") == ("job_1" if name == "wandb" else None)
    assert logged == ["log", 3, {"train_loss": 2.5}]
    assert finished == ["finish"]
    assert json.loads((tmp_path / "progress.jsonl").read_text())["values"] == {"train_loss": 2.5}


def test_a_tracker_that_fails_on_the_way_stops_nothing(told: Any, tmp_path: Path) -> None:
    with ProgressWriter(tmp_path / "progress.jsonl") as progress:
        progress.track(start_tracker(PretrainConfig(tracker="wandb"), spec_in(tmp_path)))
        progress.metrics(1, {"boom": 1.0})
        progress.metrics(2, {"train_loss": 2.0})
    assert [line[0] for line in told("wandb")] == ["init"]
    assert len((tmp_path / "progress.jsonl").read_text().splitlines()) == 2


def test_a_tracker_that_does_not_start_says_why(told: Any, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="does not start: RuntimeError: no API key"):
        start_tracker(PretrainConfig(tracker="trackio", run="refused"), spec_in(tmp_path))


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_package_that_is_missing_is_named_before_the_first_step(
    name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InvalidConfig, match=f"pip install {name}") as caught:
        start_tracker(PretrainConfig(tracker=name), spec_in(tmp_path))
    assert caught.value.param == "config.tracker"


REAL = """
import sys
from pathlib import Path
from nanochat.protocol.jobs import PretrainConfig, RunSpec
from nanochat.recipes.tracker import start_tracker
home = Path(sys.argv[2])
(home / "jobs" / "job_1").mkdir(parents=True)
spec = RunSpec(job_id="job_1", kind="pretrain", name="one", config={}, home=str(home))
tracker = start_tracker(PretrainConfig(tracker=sys.argv[1], run="mine"), spec)
for step in range(3):
    tracker.metrics(step, {"train_loss": 3.0 - step})
assert tracker._run is not None
tracker.close()
"""


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_the_real_package_takes_it_offline(name: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    environment = {"WANDB_MODE": "offline", "TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", REAL, name, str(tmp_path)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    kept = tmp_path / ("jobs/job_1/wandb" if name == "wandb" else "trackio")
    assert [path for path in kept.rglob("*") if path.is_file() and path.stat().st_size]
