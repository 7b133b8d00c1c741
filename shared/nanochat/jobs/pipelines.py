"""Stages of a pipeline: made from a profile, and what becomes of the parent when one of them changes.

A stage names the one before it as predecessor; that is all the order there is. See profiles.py for the stages as data.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy.orm import Session

from nanochat.errors import InvalidConfig
from nanochat.jobs.journal import EventType, append_event, move, status_of
from nanochat.jobs.profiles import Profile, Stage
from nanochat.jobs.states import pipeline_status
from nanochat.jobs.tables import JobRow
from nanochat.jobs.views import stage_rows
from nanochat.protocol.jobs import (
    CONFIG_BY_KIND,
    JobError,
    JobProgress,
    JobStatus,
    PipelineConfig,
    parse_config,
    stage_name,
)


def chosen_stages(profile: Profile, config: PipelineConfig) -> list[Stage]:
    """The profile's stages, or those that the config names. Raises InvalidConfig."""
    names = [stage.name for stage in profile.stages]
    for name in config.stages or ():
        if name not in names:
            raise InvalidConfig(
                f"config.stages: profile {config.profile!r} has no stage {name!r}; it has {', '.join(names)}.",
                param="config.stages",
            )
    return [stage for stage in profile.stages if config.stages is None or stage.name in config.stages]


def stage_configs(
    stages: Sequence[Stage], config: PipelineConfig, names: Sequence[str], stage_ids: Sequence[str]
) -> list[dict[str, Any]]:
    """Each stage's config: the profile's, overridden, with "@name" replaced by the id of that earlier stage.

    `names` are the stages' jobs', and of the folders for their checkpoints. Overrides by a stage's name go before those
    by its kind. Raises InvalidConfig naming config.overrides.<stage>.<key>.
    """
    known = dict.fromkeys(key for stage in stages for key in (stage.name, stage.kind))
    for key in config.overrides:
        if key not in known:
            raise InvalidConfig(
                f"config.overrides.{key}: profile {config.profile!r} has no such stage; it has {', '.join(known)}.",
                param=f"config.overrides.{key}",
            )
    ids: dict[str, str] = {}
    configs = []
    for stage, name, stage_id in zip(stages, names, stage_ids, strict=True):
        overrides = {**config.overrides.get(stage.kind, {}), **config.overrides.get(stage.name, {})}
        configs.append(_stage_config(stage, overrides, name, ids))
        ids[stage.name] = stage_id
    return configs


def _stage_config(stage: Stage, overrides: dict[str, Any], run: str, ids: dict[str, str]) -> dict[str, Any]:
    values = {**stage.config, **overrides}
    if "run" in CONFIG_BY_KIND[stage.kind].model_fields:
        values["run"] = values.get("run") or run
    for key, value in values.items():
        if isinstance(value, str) and value.startswith("@"):
            if value[1:] not in ids:
                raise InvalidConfig(
                    f"config.overrides.{stage.name}.{key} is {value!r}, but no earlier stage is called that; "
                    f"use one of {', '.join('@' + name for name in ids) or 'none (this is the first stage)'}.",
                    param=f"config.overrides.{stage.name}.{key}",
                )
            values[key] = ids[value[1:]]
    try:
        parse_config(stage.kind, values)
    except InvalidConfig as exc:
        param = f"config.overrides.{stage.name}." + (exc.param or "").removeprefix("config.")
        raise InvalidConfig(exc.message.replace(exc.param or "config", param, 1), param=param) from exc
    return values


def settle(session: Session, stage: JobRow, now: float) -> None:
    """After a change of a locked stage: end the stages behind it if it failed, then bring the parent up to date.

    Does nothing for a job outside a pipeline. The parent is locked already (journal.lock).
    """
    if stage.parent_id is None:
        return
    session.flush()
    parent = session.get_one(JobRow, stage.parent_id)
    stages = stage_rows(session, parent.id)
    if stage.status in ("failed", "cancelled"):
        _end_later(session, stage, stages, now)
    _summarise(session, parent, stages, now)
    target = pipeline_status([status_of(row) for row in stages])
    if target != parent.status:
        _move_parent(session, parent, stages, target, now)


def pass_on(session: Session, stage: JobRow, event_type: EventType, now: float, data: dict[str, Any]) -> None:
    """Tell a locked stage's event among its pipeline's too, with the stage's name as "stage"; else do nothing."""
    if stage.parent_id is not None:
        parent = session.get_one(JobRow, stage.parent_id)
        name = stage_name(stage.kind, stage.name, parent.name)
        append_event(session, parent, event_type, now, {"stage": name, **data})


def _end_later(session: Session, stage: JobRow, stages: Sequence[JobRow], now: float) -> None:
    for later in stages[stage.position + 1 :]:
        if later.status != "queued":
            continue
        if stage.status == "cancelled":
            move(session, later, "cancelled", now)
            continue
        message = f"stage {stage.kind} ({stage.id}) failed before this one could start; retry it or the pipeline."
        move(session, later, "failed", now, JobError(code="predecessor_failed", message=message))


def _move_parent(session: Session, parent: JobRow, stages: Sequence[JobRow], target: JobStatus, now: float) -> None:
    error = None
    if target == "failed":
        broken = next(row for row in stages if row.status == "failed")
        cause = JobError.model_validate(broken.error)
        message = f"stage {broken.kind} ({broken.id}) failed: {cause.message}"
        error = JobError(code=cause.code, message=message, log_tail=cause.log_tail)
    if target == "running" and parent.started_at is None:
        parent.started_at = now
    move(session, parent, target, now, error)


def _summarise(session: Session, parent: JobRow, stages: Sequence[JobRow], now: float) -> None:
    """A pipeline's step is a stage; its ratio moves within the stage too. Metrics are those of all stages."""
    progress = [JobProgress.model_validate(row.progress) for row in stages]
    ratios = [1.0 if row.status == "succeeded" else p.ratio for row, p in zip(stages, progress, strict=True)]
    running = next((p for row, p in zip(stages, progress, strict=True) if row.status == "running"), None)
    summary = JobProgress(
        step=sum(row.status == "succeeded" for row in stages),
        num_steps=len(stages),
        ratio=sum(ratios) / len(ratios),
        tokens=sum(p.tokens for p in progress),
        tokens_per_second=running.tokens_per_second if running else 0.0,
    ).model_dump()
    parent.metrics = {key: value for row in stages for key, value in row.metrics.items()}
    parent.checkpoint = next((row.checkpoint for row in reversed(stages) if row.checkpoint), None)
    parent.output = next((row.output for row in reversed(stages) if row.output), None)
    if summary != parent.progress:
        parent.progress = summary
        append_event(session, parent, "progress", now, summary)
