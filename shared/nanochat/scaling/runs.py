"""The pretraining runs of a series: sizes, tokens, FLOPs, results and time of each, and which are not there yet."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat.checkpoint.manifest import CheckpointInfo, newest, read_state
from nanochat.errors import InvalidConfig, InvalidRequest, NotFound
from nanochat.jobs.profiles import load_profile
from nanochat.planning.pretraining import horizon_of
from nanochat.protocol.jobs import PretrainConfig
from nanochat.protocol.progress import Progress, readable_lines
from nanochat.sizes import flops_per_token, num_parameters, scaling_parameters

STAGE = "pretrain"


@dataclass(frozen=True, kw_only=True)
class SeriesRun:
    """One finished run. `budget` is what was asked for in FLOPs, where that is how it was asked; seconds are those of
    its steps, by their median speed; None where its progress file is gone."""

    run: str
    depth: int
    parameters: int
    scaling_parameters: int
    tokens: int
    flops: float
    val_bpb: float
    core_metric: float | None = None
    budget: float | None = None
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Series:
    """`missing` says of each run that is expected and not finished what is known of it."""

    runs: list[SeriesRun]
    missing: dict[str, str]


def read_series(home: Path, names: Sequence[str], profile: str) -> Series:
    """Runs by their names; a name that no run bears is a pipeline's, and stands for its stages of `profile`.

    Raises NotFound where a name leads to no run at all, InvalidRequest for one that can be no run's.
    """
    stages = [stage.name for stage in load_profile(profile).stages if stage.kind == STAGE]
    runs: list[SeriesRun] = []
    missing: dict[str, str] = {}
    for name in names:
        if "/" in name or name.startswith("."):
            raise InvalidRequest(f"{name!r} is no run's name; give a run, or the pipeline of a series.", param="run")
        if newest(home, name, STAGE) is not None:
            found = {name: _read_run(home, name)}
        else:
            found = {run: _read_run(home, run) for run in (f"{name}-{stage}" for stage in stages)}
            if all(result == _NOTHING for result in found.values()):
                raise NotFound(
                    f"no run {name!r} with a pretraining checkpoint, and none of a {profile} pipeline of that name "
                    f"(such as {name}-{stages[0]}) in {home / 'checkpoints'}."
                )
        for run, result in found.items():
            if isinstance(result, SeriesRun):
                runs.append(result)
            else:
                missing[run] = result
    return Series(runs=runs, missing=missing)


_NOTHING = "no checkpoint yet"


def _read_run(home: Path, run: str) -> SeriesRun | str:
    """A finished run, or why it counts for none."""
    info = newest(home, run, STAGE)
    if info is None:
        return _NOTHING
    state = read_state(info.folder)
    try:
        config = PretrainConfig.model_validate(state["config"])
        tokens = int(state["tokens"])
        batch_tokens = tokens // info.step  # as it was cut for however many ranks
        horizon = horizon_of(config.model_copy(update={"total_batch_size": batch_tokens}), info.config)
    except (KeyError, TypeError, ValueError, ArithmeticError, InvalidConfig):
        return f"{info.id} does not say how it was trained"
    if info.step < horizon.num_steps:
        return f"at step {info.step} of {horizon.num_steps}"
    if "val_bpb" not in info.metrics:
        return f"{info.id} has no val_bpb"
    return SeriesRun(
        run=run,
        depth=info.config.n_layer,
        parameters=num_parameters(info.config),
        scaling_parameters=scaling_parameters(info.config),
        tokens=tokens,
        flops=float(flops_per_token(info.config) * tokens),
        val_bpb=info.metrics["val_bpb"],
        core_metric=info.metrics.get("core_metric"),
        budget=config.target_flops if config.num_iterations is None else None,
        seconds=_seconds(home, info, state, tokens),
    )


def _seconds(home: Path, info: CheckpointInfo, state: dict[str, Any], tokens: int) -> float | None:
    file = home / "jobs" / str(state.get("job_id")) / "progress.jsonl"
    if not file.is_file():
        return None
    lines = readable_lines(file)
    speeds = [line.tokens_per_second for line in lines if isinstance(line, Progress) and line.tokens_per_second > 0]
    return tokens / statistics.median(speeds) if speeds else None
