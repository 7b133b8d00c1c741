"""What a run's page says, in which order: numbers that matter first, stages beside each other, then each by itself."""

from collections.abc import Mapping, Sequence

from nanochat.numbers import count, duration, figure, moment, percent
from nanochat.protocol.progress import Environment
from nanochat.report.cost import Effort, cost_blocks, effort_of, stage_flops
from nanochat.report.document import Block, Charts, Document, Notice, Section, Table, Text
from nanochat.report.figures import chat_chart, compared, core_chart, is_ratio, label_of
from nanochat.report.history import History
from nanochat.report.run import Run, Stage
from nanochat.report.stage_section import how_far, notice, notices, stage_section
from nanochat.sizes import num_parameters, parameters_by_group

_GIB = 2**30


def write_content(run: Run, now: float) -> Document:
    """`now` in Unix seconds: when the page is written."""
    names = {stage.place: _name(run, stage) for stage in run.stages}
    metrics = {names[stage.place]: stage.curves().newest() for stage in run.stages}
    effort = effort_of(run)
    sections = [
        Section(title="Stages beside each other", blocks=_comparison(run, names, metrics)),
        Section(title="Tasks", blocks=_tasks(metrics)),
        *(stage_section(stage, names[stage.place]) for stage in run.stages),
        Section(title="Model and tokenizer", blocks=_model(run)),
        Section(title="Time", blocks=_time(run)),
        Section(title="Cost", blocks=cost_blocks(effort)),
        Section(title="Environment", blocks=_environment(run, names)),
    ]
    return Document(
        title=f"Run {run.name}",
        lead=f"{_standing(run)} Written {moment(now)}.",
        notices=_notices(run, names),
        figures=_figures(run, metrics, effort),
        sections=[section for section in sections if section.blocks],
    )


def _name(run: Run, stage: Stage) -> str:
    """A stage of the run itself by its kind, one that it is built on with its run."""
    return stage.kind if stage.place[0] == run.name else stage.name


def _standing(run: Run) -> str:
    """How the run's own last stage stands, in a sentence."""
    if not run.stages:
        return "No stage has begun yet."
    last = run.stages[-1]
    if last.status == "failed":
        return f"Stage {last.kind} has failed."
    if last.status == "succeeded":
        return f"Trained as far as {last.kind}."
    return f"Unfinished: {last.kind} is {how_far(last.jobs[-1])}."


def _notices(run: Run, names: Mapping[tuple[str, str], str]) -> list[Notice]:
    made = [notice(job, f"{job.spec.kind.capitalize()} {job.spec.name}") for job in run.preparations]
    of_stages = [one for stage in run.stages for one in notices(stage, names[stage.place])]
    return [*(one for one in made if one is not None), *of_stages]


def _figures(run: Run, metrics: Mapping[str, Mapping[str, float]], effort: Effort) -> list[tuple[str, str]]:
    figures = []
    if parameters := _parameters(run):
        figures.append(("parameters", count(parameters)))
    if tokens := sum(stage.tokens for stage in run.stages):
        figures.append(("tokens trained on", count(tokens)))
    for name, label in (("val_bpb", "bits per byte"), ("core_metric", "CORE"), ("chatcore_metric", "ChatCORE")):
        # Of text, which pretraining is measured on: later stages measure conversations.
        found = next((values[name] for values in metrics.values() if name in values), None)
        if found is not None:
            figures.append((label, figure(found)))
    if effort.seconds:
        figures.append(("in jobs", duration(effort.seconds)))
    if headline := effort.headline():
        figures.append(headline)
    return figures


def _parameters(run: Run) -> int | None:
    for stage in reversed(run.stages):
        if stage.setup and stage.setup.num_parameters:
            return stage.setup.num_parameters
        if stage.checkpoint is not None:
            return num_parameters(stage.checkpoint.config)
    return None


def _comparison(
    run: Run, names: Mapping[tuple[str, str], str], metrics: Mapping[str, Mapping[str, float]]
) -> list[Block]:
    """A column a stage: how it stands, what it took, and what it came to."""
    if not run.stages:
        return []
    rows = [
        ["state", *(stage.status for stage in run.stages)],
        ["step", *(_step(stage) for stage in run.stages)],
        ["tokens", *(count(stage.tokens) if stage.tokens else "-" for stage in run.stages)],
        ["FLOPs", *(f"{flops:.3g}" if (flops := stage_flops(stage)) else "-" for stage in run.stages)],
        ["time in jobs", *(_duration_of(stage.jobs) for stage in run.stages)],
    ]
    for name in compared(metrics):
        rows.append([label_of(name), *(_value(values, name) for values in metrics.values())])
    return [Table(headings=("", *names.values()), rows=rows)]


def _step(stage: Stage) -> str:
    progress = stage.jobs[-1].progress if stage.jobs else None
    if progress is not None:
        return f"{progress.step:,} of {progress.num_steps:,}"
    return f"{stage.checkpoint.step:,}" if stage.checkpoint else "-"


def _duration_of(jobs: Sequence[History]) -> str:
    seconds = sum(job.seconds for job in jobs)
    return duration(seconds) if seconds else "-"


def _value(values: Mapping[str, float], name: str) -> str:
    """With its standard error, where that was measured too."""
    if name not in values:
        return "-"
    if not is_ratio(name):
        return figure(values[name])
    error = values.get(name.removesuffix("_accuracy") + "_stderr")
    return percent(values[name]) + (f" ± {100 * error:.1f}" if error else "")


def _tasks(metrics: Mapping[str, Mapping[str, float]]) -> list[Block]:
    charts = [chart for chart in (chat_chart(metrics), core_chart(metrics)) if chart is not None]
    return [Charts(charts=charts)] if charts else []


def _model(run: Run) -> list[Block]:
    blocks: list[Block] = []
    info = next((stage.checkpoint for stage in reversed(run.stages) if stage.checkpoint), None)
    if info is not None:
        config = info.config
        rows = [
            ["layers", str(config.n_layer)],
            ["width", str(config.n_embd)],
            ["heads, of keys and values", f"{config.n_head}, {config.n_kv_head}"],
            ["context, tokens", figure(config.sequence_len)],
            ["windows", config.window_pattern],
            ["vocabulary", figure(config.vocab_size)],
        ]
        groups = parameters_by_group(config).items()
        rows += [[f"parameters: {group.replace('_', ' ')}", f"{number:,}"] for group, number in groups]
        blocks.append(Table(headings=("model", ""), rows=rows))
    if run.tokenizer is not None:
        values = run.tokenizer.curves.newest()
        rows = [["name", run.tokenizer.spec.name]]
        rows += [[name.replace("_", " "), figure(value)] for name, value in values.items()]
        blocks.append(Table(headings=("tokenizer", ""), rows=rows))
    datasets = dict.fromkeys(str(stage.config["dataset"]) for stage in run.stages if stage.config.get("dataset"))
    if datasets:
        blocks.append(Text(text=f"Text: {', '.join(datasets)}."))
    return blocks


def _time(run: Run) -> list[Block]:
    """A row a job, in the order in which they began."""
    jobs = sorted(run.jobs, key=lambda job: job.started or float("inf"))
    if not jobs:
        return []
    rows = [
        [
            job.spec.kind,
            job.spec.job_id,
            job.status,
            moment(job.started) if job.started else "-",
            duration(job.seconds),
        ]
        for job in jobs
    ]
    rows.append(["in all", "", "", "", duration(sum(job.seconds for job in jobs))])
    return [Table(headings=("kind", "job", "state", "began", "time"), rows=rows, is_text=True)]


def _environment(run: Run, names: Mapping[tuple[str, str], str]) -> list[Block]:
    """A column for each different one."""
    columns: dict[Environment, list[str]] = {}
    for stage in run.stages:
        if stage.environment is not None:
            columns.setdefault(stage.environment, []).append(names[stage.place])
    rows = [
        ["device", *(one.device_name for one in columns)],
        ["ranks", *(str(one.num_ranks) for one in columns)],
        ["cores", *(str(one.num_cores) for one in columns)],
        ["memory, GiB", *(f"{one.memory_bytes / _GIB:.1f}" for one in columns)],
        ["system", *(one.system for one in columns)],
        ["Python", *(one.python for one in columns)],
        ["torch", *(one.torch for one in columns)],
        ["nanochat", *(one.version for one in columns)],
        ["commit", *(one.commit or "-" for one in columns)],
    ]
    setups = [(names[stage.place], stage.setup) for stage in run.stages if stage.setup]
    computing = [[name, s.device, s.precision, s.attention, s.window_attention] for name, s in setups]
    blocks: list[Block] = []
    if columns:
        blocks.append(
            Table(headings=("", *(", ".join(stages) for stages in columns.values())), rows=rows, is_text=True)
        )
    if computing:
        headings = ("stage", "device", "precision", "attention", "in a window")
        blocks.append(Table(headings=headings, rows=computing, is_text=True))
    return blocks
