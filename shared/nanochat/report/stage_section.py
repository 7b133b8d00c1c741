"""What a report says of one stage: how it went, its curves, every metric, samples, and what was asked for."""

import json
from collections.abc import Sequence

from nanochat.numbers import count, duration, figure, moment, percent
from nanochat.report.document import Block, Charts, Exchanges, Notice, Section, Table, Text
from nanochat.report.figures import is_ratio, stage_charts
from nanochat.report.history import Curves, History
from nanochat.report.run import Stage


def stage_section(stage: Stage, name: str) -> Section:
    curves = stage.curves()
    blocks: list[Block] = [Text(text=_summary(stage)), *notices(stage, name)]
    if charts := stage_charts(curves):
        blocks.append(Charts(charts=charts))
    if curves.names():
        blocks.append(_metrics(curves))
    if samples := stage.samples:
        caption = f"Samples at step {figure(samples[0].step)}"
        blocks.append(Exchanges(caption=caption, exchanges=[(sample.prompt, sample.text) for sample in samples]))
    if stage.config:
        rows = [[key, shown(value)] for key, value in stage.config.items() if value is not None]
        blocks.append(Table(headings=("key", "value"), rows=rows, caption="Config", is_folded=True, is_text=True))
    return Section(title=f"Stage {name}", blocks=blocks)


def notices(stage: Stage, name: str) -> list[Notice]:
    """What keeps the stage, or a judgement of it, from being whole."""
    found = [notice(stage.jobs[-1], f"Stage {name}")] if stage.jobs else []
    found += [notice(job, f"Evaluation {job.spec.job_id} of {name}") for job in stage.evaluations]
    return [one for one in found if one is not None]


def notice(job: History, what: str) -> Notice | None:
    """None of a job that succeeded."""
    if job.failure is not None:
        return Notice(text=f"{what} failed ({job.failure.code}): {job.failure.message}", is_error=True)
    if job.status == "not started":
        return Notice(text=f"{what} has not begun yet.")
    if job.status == "unfinished":
        assert job.heard is not None
        return Notice(text=f"{what} is unfinished: {how_far(job)}, last heard of {moment(job.heard)}.")
    return None


def how_far(job: History) -> str:
    progress = job.progress
    if progress is None or not progress.num_steps:
        return "it has not said how far it is"
    if job.spec.kind in ("evaluate", "tokenizer", "dataset"):  # whose steps are no training steps
        return f"{progress.ratio:.0%} done"
    return f"at step {progress.step:,} of {progress.num_steps:,} ({progress.ratio:.0%})"


def shown(value: object) -> str:
    """A config's value as its user wrote it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _summary(stage: Stage) -> str:
    """Where it began, how many steps and tokens, and where its newest checkpoint is."""
    sentences = []
    if stage.base:
        sentences.append(f"Begins with checkpoint {stage.base}.")
    if stage.tokens:
        seconds = sum(job.seconds for job in stage.jobs)
        took = f" in {duration(seconds)}" if seconds else ""
        sentences.append(f"{count(stage.tokens)} tokens{took}.")
    if stage.checkpoint is not None:
        sentences.append(f"Newest checkpoint: {stage.checkpoint.id}.")
    if len(stage.jobs) > 1:
        sentences.append(f"{len(stage.jobs)} jobs have worked on it.")
    return " ".join(sentences) or "Nothing is known of it but its config."


def _metrics(curves: Curves) -> Table:
    rows: list[Sequence[str]] = []
    for name in sorted(curves.names()):
        points = curves.points(name)
        values = [value for _, value in points]
        write = percent if is_ratio(name) else figure
        ends = [write(values[-1]), write(min(values)), write(max(values))]
        rows.append([name, *ends, figure(points[-1][0]), str(len(points))])
    headings = ("metric", "newest", "lowest", "highest", "at step", "points")
    return Table(headings=headings, rows=rows, caption="All metrics", is_folded=True)
