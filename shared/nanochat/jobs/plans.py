"""A spec as the rows it makes: one job, or a pipeline and its stages. Pure: nothing is stored here."""

import secrets
from typing import Any, cast

from nanochat.errors import InvalidConfig
from nanochat.jobs.pipelines import chosen_stages, stage_configs
from nanochat.jobs.profiles import load_profile
from nanochat.jobs.tables import JobRow
from nanochat.protocol.jobs import (
    CONFIG_BY_KIND,
    MAX_NAME_LENGTH,
    DatasetConfig,
    JobKind,
    JobProgress,
    JobSpec,
    PipelineConfig,
    parse_config,
)

# What runs on one process however many the pipeline asks for.
SINGLE_PROCESS_KINDS = frozenset({"tokenizer", "dataset", "report"})


def new_job_id(now: float, position: int = 0) -> str:
    """Sorts by age, then by place in the pipeline: milliseconds, position and chance in hexadecimal."""
    return f"job_{int(now * 1000):011x}{position:02x}{secrets.token_hex(4)}"


def plan(spec: JobSpec, now: float) -> list[JobRow]:
    """The rows of a spec, a pipeline before its stages. Raises InvalidConfig.

    A job without a name gets one of its own, so that two of them never write into the same folder.
    """
    parse_config(spec.kind, spec.config)
    if spec.num_processes is None:
        asked = load_profile(spec.config["profile"]).num_processes if spec.kind == "pipeline" else 1
        spec = spec.model_copy(update={"num_processes": asked})
    job_id = new_job_id(now)
    label = spec.config["profile"] if spec.kind == "pipeline" else spec.kind
    name = spec.name or f"{label}-{job_id[-6:]}"
    if spec.kind != "pipeline":
        return [_row(spec, job_id, spec.kind, name, _named_run(spec.kind, name, spec.config), now)]
    return [_row(spec, job_id, spec.kind, name, spec.config, now), *_stages(spec, job_id, name, now)]


def _stages(spec: JobSpec, parent_id: str, name: str, now: float) -> list[JobRow]:
    config = PipelineConfig.model_validate(spec.config)
    stages = chosen_stages(load_profile(config.profile), config)
    ids = [new_job_id(now, position) for position in range(1, len(stages) + 1)]
    names = [name if stage.name == stage.kind else f"{name}-{stage.name}" for stage in stages]
    longest = max(names, key=len)
    if len(longest) > MAX_NAME_LENGTH:
        raise InvalidConfig(
            f"name is {name!r}, and stages are named after it: {longest!r} has {len(longest)} characters, "
            f"{MAX_NAME_LENGTH} are allowed. Give a shorter name.",
            param="name",
        )
    configs = stage_configs(stages, config, names, ids)
    rows = []
    for position, (stage, values) in enumerate(zip(stages, configs, strict=True)):
        row = _row(spec, ids[position], stage.kind, names[position], values, now)
        row.deadline_s = None  # the pipeline's counts for all of them
        row.parent_id, row.position = parent_id, position
        row.predecessor_id = ids[position - 1] if position else None
        rows.append(row)
    return rows


def _named_run(kind: JobKind, name: str, config: dict[str, Any]) -> dict[str, Any]:
    """The config with its run's (a dataset's own) name in it, where the kind has one: no recipe need know the rule."""
    if kind == "dataset":
        return {**config, "name": DatasetConfig.model_validate(config).folder_name}
    if "run" not in CONFIG_BY_KIND[kind].model_fields or kind == "report":
        return config
    return {**config, "run": config.get("run") or name}


def _row(spec: JobSpec, job_id: str, kind: str, name: str, config: dict[str, Any], now: float) -> JobRow:
    return JobRow(
        id=job_id,
        kind=kind,
        name=name,
        config=config,
        num_processes=1 if cast(JobKind, kind) in SINGLE_PROCESS_KINDS else spec.num_processes or 1,
        priority=spec.priority,
        max_attempts=spec.max_attempts,
        deadline_s=spec.deadline_s,
        parent_id=None,
        predecessor_id=None,
        position=0,
        status="queued",
        cancel_requested=False,
        attempt=0,
        failures=0,
        created_at=now,
        queued_at=now,
        dispatched_at=None,
        started_at=None,
        finished_at=None,
        progress=JobProgress().model_dump(),
        progress_offset=0,
        metrics={},
        checkpoint=None,
        output=None,
        error=None,
        last_event=0,
    )
