"""A run's metrics in Weights & Biases or in trackio, where the job's config names one; progress.jsonl has them always.

The two speak alike (init, log, finish). Neither is installed by default, and neither is imported unless it is asked
for. Where they keep or send things is for their own variables to say: WANDB_API_KEY, WANDB_MODE, TRACKIO_SPACE_ID, ...
"""

import importlib
import logging
from pathlib import Path
from typing import Any

from nanochat.errors import InvalidConfig, Unavailable
from nanochat.protocol.jobs import RlConfig, RunSpec, TrainingConfig

log = logging.getLogger(__name__)

PROJECT = "nanochat"


class Tracker:
    """An open run. What goes wrong there is logged once and never stops the training, which does not need it."""

    def __init__(self, name: str, run: Any) -> None:
        self._name = name
        self._run = run

    def metrics(self, step: int, values: dict[str, float]) -> None:
        if self._run is None:
            return
        try:
            self._run.log(values, step=step)
        except Exception as exc:  # noqa: BLE001 - whatever a foreign package raises, and over any network
            self._lose(exc)

    def close(self) -> None:
        if self._run is None:
            return
        try:
            self._run.finish()
        except Exception as exc:  # noqa: BLE001 - as above
            self._lose(exc)
        self._run = None

    def _lose(self, exc: Exception) -> None:
        log.warning("tracker_lost", extra={"tracker": self._name, "reason": f"{type(exc).__name__}: {exc}"})
        self._run = None


def start_tracker(config: TrainingConfig | RlConfig, spec: RunSpec) -> Tracker:
    """Open the run in project nanochat, under the run's name; a later attempt of the job goes on with it.

    Raises InvalidConfig where the package is missing, Unavailable where it will not start (no key, no network).
    """
    name = config.tracker
    try:
        package = importlib.import_module(name)
    except ImportError as exc:
        raise InvalidConfig(
            f"config.tracker is {name} and that package is not installed here ({exc}); "
            f"install it with pip install {name}, or leave tracker out.",
            param="config.tracker",
        ) from exc
    options: dict[str, Any] = {"project": PROJECT, "name": config.run or spec.name, "resume": "allow"}
    if name == "wandb":
        # Its files lie with the job's; the job's id is what a later attempt finds the run by.
        options |= {"id": spec.job_id, "dir": str(Path(spec.home) / "jobs" / spec.job_id), "group": spec.name}
    try:
        run = package.init(config={"kind": spec.kind, "job_id": spec.job_id, **config.model_dump()}, **options)
    except Exception as exc:
        raise Unavailable(
            f"config.tracker is {name} and it does not start: {type(exc).__name__}: {exc}. "
            "See to what it asks for, or leave tracker out.",
            param="config.tracker",
        ) from exc
    log.info("tracker_started", extra={"tracker": name, "run": options["name"]})
    return Tracker(name, run)
