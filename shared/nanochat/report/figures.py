"""Which metrics are drawn as what: curves over a stage's steps, and bars that compare stages.

A name that nobody has foreseen is drawn nowhere and still told: the table of all metrics has it.
"""

from collections.abc import Mapping, Sequence

from nanochat.report.document import Bar, BarChart, Curve, LineChart
from nanochat.report.history import Curves
from nanochat.report.run import TEXT_BPB

# In this order; a title may gather several metrics, each with the name of its curve.
_CHARTS: dict[str, dict[str, str]] = {
    "Training loss": {"train_loss": "loss, nats a token"},
    "Validation bits per byte": {"val_bpb": "bits per byte"},
    "Learning rate of the matrices": {"learning_rate": "learning rate"},
    "Tokens a second": {"tokens_per_second": "tokens a second"},
    "Share of the device's peak (MFU)": {"train_mfu_ratio": "MFU"},
    "Reward": {"reward_mean": "mean reward"},
    "Length of answers": {"response_length_mean": "tokens an answer"},
    "CORE": {"core_metric": "CORE"},
    "ChatCORE": {"chatcore_metric": "ChatCORE"},
    "Bits per byte of text": {TEXT_BPB: "bits per byte of text"},
}
_ACCURACY, _CORE, _PASS = "_accuracy", "core_", "pass_at_"
# What comes beside a task's accuracy, and of CORE what is no task.
_COMPANIONS = ("_stderr", "_count", "_seconds")
_NO_TASKS = ("core_metric", "core_num_tasks")


def stage_charts(curves: Curves) -> list[LineChart]:
    """Of everything that was measured at two steps or more."""
    charts = []
    gathered = {
        **_CHARTS,
        "pass@k": {name: label_of(name) for name in sorted(curves.names()) if name.startswith(_PASS)},
        "Right answers": {name: label_of(name) for name in sorted(curves.names()) if name.endswith(_ACCURACY)},
    }
    for title, members in gathered.items():
        drawn = [Curve(name=label, points=curves.points(name)) for name, label in members.items()]
        drawn = [curve for curve in drawn if len(curve.points) > 1]
        if drawn:
            charts.append(LineChart(title=title, curves=drawn))
    return charts


def chat_chart(metrics: Mapping[str, Mapping[str, float]]) -> BarChart | None:
    """Right answers by task, a bar a stage. `metrics`: the newest of each stage by its name. None without any."""
    names = {stage: [name for name in values if name.endswith(_ACCURACY)] for stage, values in metrics.items()}
    groups = _groups(metrics, names, _ACCURACY)
    if not groups:
        return None
    return BarChart(title="Right answers by task", series=_present(groups, metrics), groups=groups, is_share=True)


def core_chart(metrics: Mapping[str, Mapping[str, float]]) -> BarChart | None:
    """Centered accuracy by task of CORE, a bar a stage."""
    names = {stage: [name for name in values if _is_core_task(name)] for stage, values in metrics.items()}
    groups = _groups(metrics, names, "")
    if not groups:
        return None
    return BarChart(
        title="CORE by task: 0 is guessing, 1 is all right", series=_present(groups, metrics), groups=groups
    )


def compared(metrics: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The metrics that a table beside stages is made of, in order; those that no stage has left out."""
    present = {name for values in metrics.values() for name in values}
    fixed = ["train_loss", "val_bpb", TEXT_BPB, "core_metric", "chatcore_metric", "reward_mean", "response_length_mean"]
    passes = sorted((name for name in present if name.startswith(_PASS)), key=lambda name: (len(name), name))
    accuracies = sorted(name for name in present if name.endswith(_ACCURACY))
    return [name for name in (*fixed, *passes, *accuracies) if name in present]


def is_ratio(name: str) -> bool:
    """What is written in percent."""
    return name.endswith((_ACCURACY, "_ratio")) or name.startswith(_PASS)


def label_of(name: str) -> str:
    """A metric's name for a reader: pass@8, spelling."""
    known = {metric: label for members in _CHARTS.values() for metric, label in members.items()}
    if name in known:
        return known[name]
    if name.startswith(_PASS):
        return "pass@" + name.removeprefix(_PASS)
    return name.removesuffix(_ACCURACY).removeprefix(_CORE).replace("_", " ")


def _is_core_task(name: str) -> bool:
    return name.startswith(_CORE) and name not in _NO_TASKS and not name.endswith((*_COMPANIONS, _ACCURACY))


def _groups(
    metrics: Mapping[str, Mapping[str, float]], names: Mapping[str, Sequence[str]], suffix: str
) -> list[tuple[str, Sequence[Bar]]]:
    """A group a metric; a stage that does not have it has no bar there."""
    groups: list[tuple[str, Sequence[Bar]]] = []
    for name in sorted({name for found in names.values() for name in found}):
        stem = name.removesuffix(suffix) if suffix else name
        bars = [
            Bar(series=stage, value=values[name], error=values.get(f"{stem}_stderr"))
            for stage, values in metrics.items()
            if name in values
        ]
        groups.append((label_of(name), bars))
    return groups


def _present(groups: Sequence[tuple[str, Sequence[Bar]]], metrics: Mapping[str, object]) -> list[str]:
    drawn = {bar.series for _, bars in groups for bar in bars}
    return [stage for stage in metrics if stage in drawn]
