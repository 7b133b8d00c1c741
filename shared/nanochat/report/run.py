"""Which jobs and checkpoints make a run: its stages, those it is built on, and whoever trained, fed or judged them.

Found by what jobs name (a run, a checkpoint, a tokenizer, a dataset) in jobs/<id>/spec.json and in checkpoints' states:
no database is asked, so recipes run by hand are found as well, and a run that others have taken checkpoints from is
told nothing of theirs.
"""

import contextlib
import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nanochat.checkpoint import manifest
from nanochat.checkpoint.manifest import CheckpointInfo
from nanochat.errors import CheckpointCorrupt, NotFound
from nanochat.protocol.jobs import RunSpec, parse_config
from nanochat.protocol.progress import Environment, Sample, Setup
from nanochat.report.history import Curves, History, Status, read_history

STAGE_KINDS = ("pretrain", "sft", "rl")
TEXT_BPB = "text_bpb"
_NUM_NAMED = 12

# A run and its stage: a folder under checkpoints/.
Place = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of one run: the jobs that trained it, oldest first; its newest checkpoint; who judged it, oldest first.

    `base` is the checkpoint that it began with, as its job or its checkpoint names it.
    """

    place: Place
    jobs: Sequence[History]
    checkpoint: CheckpointInfo | None
    state: Mapping[str, Any]
    evaluations: Sequence[History]
    base: str | None = None

    @property
    def name(self) -> str:
        return "/".join(self.place)

    @property
    def kind(self) -> str:
        return self.place[1]

    @property
    def status(self) -> Status:
        if self.jobs:
            return self.jobs[-1].status
        return "succeeded"  # a checkpoint alone, as of an import

    @property
    def config(self) -> Mapping[str, Any]:
        """As asked for by its newest job."""
        if self.jobs:
            return self.jobs[-1].spec.config
        config = self.state.get("config")
        return config if isinstance(config, dict) else {}

    @property
    def setup(self) -> Setup | None:
        return next((job.setup for job in reversed(self.jobs) if job.setup is not None), None)

    @property
    def environment(self) -> Environment | None:
        return self.setup.environment if self.setup else None

    @property
    def samples(self) -> list[Sample]:
        """Of the newest step that has any: what judges have asked before what training has."""
        for jobs in (self.evaluations, self.jobs):
            found = [sample for job in jobs for sample in job.samples]
            if found:
                newest = max(found, key=lambda sample: (sample.step, sample.time))
                return list({s.prompt: s for s in found if s.step == newest.step}.values())
        return []

    @property
    def tokens(self) -> int:
        told = [job.progress.tokens for job in self.jobs if job.progress]
        return int(told[-1] if told else self.state.get("tokens") or 0)

    def curves(self) -> Curves:
        """What training has measured, and at their checkpoints' steps what judges have."""
        curves = Curves()
        if not self.jobs and self.checkpoint:
            curves.insert(self.checkpoint.step, self.checkpoint.metrics)
        for job in self.jobs:
            for step, values in _by_step(job.curves).items():
                curves.extend(step, values)
        for job in self.evaluations:
            for step, values in _by_step(job.curves).items():
                curves.insert(step, {self._judged(name): value for name, value in values.items()})
        return curves

    def _judged(self, name: str) -> str:
        """Fine-tuning measures val_bpb on conversations, an evaluation on text: two metrics, then."""
        return TEXT_BPB if name == "val_bpb" and self.kind != "pretrain" else name


@dataclass(frozen=True, kw_only=True)
class Run:
    """`stages` begin with what the run is built on. `preparations`: the jobs that made its datasets and tokenizers."""

    name: str
    stages: Sequence[Stage]
    preparations: Sequence[History] = field(default_factory=tuple)

    @property
    def jobs(self) -> list[History]:
        staged = [job for stage in self.stages for job in (*stage.jobs, *stage.evaluations)]
        return [*self.preparations, *staged]

    @property
    def tokenizer(self) -> History | None:
        return next((job for job in reversed(self.preparations) if job.spec.kind == "tokenizer"), None)


def read_run(home: Path, name: str) -> Run:
    """Raises NotFound, naming runs there are; InvalidConfig for what can be no run's name."""
    parse_config("report", {"run": name})
    specs = _read_specs(home)
    places = _places(home, specs, name)
    stages: dict[Place, Stage] = {}
    for place in places:
        _add(stages, home, specs, place)
    preparations = _preparations(home, specs, name, list(stages.values()))
    if not stages and not preparations:
        raise NotFound(_unknown(name, _known_runs(home, specs)))
    return Run(name=name, stages=list(stages.values()), preparations=preparations)


def _read_specs(home: Path) -> list[RunSpec]:
    """Of every job that has been started here and whose spec can be read."""
    specs = []
    for path in sorted((home / "jobs").glob("*/spec.json")):
        with contextlib.suppress(OSError, ValidationError):
            spec = RunSpec.model_validate_json(path.read_bytes())
            specs.append(spec.model_copy(update={"job_id": path.parent.name}))
    return specs


def _run_of(spec: RunSpec) -> str:
    return str(spec.config.get("run") or spec.name)


def _places(home: Path, specs: Iterable[RunSpec], name: str) -> list[Place]:
    """The run's own stages, in the order of training; others, such as an import may have named, last."""
    found: set[str] = {spec.kind for spec in specs if spec.kind in STAGE_KINDS and _run_of(spec) == name}
    folder = manifest.checkpoints_dir(home) / name
    found |= {path.parent.parent.name for path in folder.glob(f"*/step_*/{manifest.MANIFEST}")}
    order = {kind: number for number, kind in enumerate(STAGE_KINDS)}
    return [(name, kind) for kind in sorted(found, key=lambda kind: (order.get(kind, len(order)), kind))]


def _add(stages: dict[Place, Stage], home: Path, specs: Sequence[RunSpec], place: Place) -> None:
    """A stage, behind what it is built on. One that is being added already (a circle of specs) is left alone."""
    if place in stages:
        return
    run, kind = place
    checkpoint = manifest.newest(home, run, kind)
    state: Mapping[str, Any] = {}
    if checkpoint is not None:
        with contextlib.suppress(CheckpointCorrupt):
            state = manifest.read_state(checkpoint.folder)
    jobs = _histories(home, [spec for spec in specs if spec.kind == kind and _run_of(spec) == run])
    base, before = _base(home, jobs, state)
    judges = [spec for spec in specs if spec.kind == "evaluate" and _checkpoint_of(home, spec) == place]
    stage = Stage(
        place=place,
        jobs=jobs,
        checkpoint=checkpoint,
        state=state,
        evaluations=_histories(home, judges),
        base=base,
    )
    if before is not None and before != place:
        stages[place] = stage  # holds its place against circles
        _add(stages, home, specs, before)
        del stages[place]
    if jobs or checkpoint:
        stages[place] = stage


def _base(home: Path, jobs: Sequence[History], state: Mapping[str, Any]) -> tuple[str | None, Place | None]:
    """The checkpoint that the newest job names, else the one that a checkpoint's state does; and whose it is."""
    for job in reversed(jobs):
        if reference := job.spec.config.get("checkpoint"):
            parts = _parts(home, job.spec, "checkpoints", str(reference))
            return "/".join(parts) or str(reference), _checkpoint_of(home, job.spec)
    if isinstance(base := state.get("base"), str):
        return base, _place_of(home, base.split("/"))
    return None, None


def _checkpoint_of(home: Path, spec: RunSpec) -> Place | None:
    """Of which stage a job takes a checkpoint."""
    return _place_of(home, _parts(home, spec, "checkpoints", str(spec.config.get("checkpoint"))))


def _histories(home: Path, specs: Iterable[RunSpec]) -> list[History]:
    """Oldest first; those that have not said a word yet last."""
    histories = [read_history(home, spec) for spec in specs]
    return sorted(histories, key=lambda history: (history.started or float("inf"), history.spec.job_id))


def _parts(home: Path, spec: RunSpec, folder: str, reference: str) -> tuple[str, ...]:
    """A job's reference below a folder of $NANOCHAT_HOME, which may have been elsewhere when the job ran.

    Empty for what lies outside. A name stays as it is.
    """
    if not reference.startswith("/"):
        return tuple(reference.split("/"))
    for root in (home, Path(spec.home)):
        path, base = Path(reference).resolve(), (root / folder).resolve()
        if path.is_relative_to(base):
            return path.relative_to(base).parts
    return ()


def _place_of(home: Path, parts: Sequence[str]) -> Place | None:
    """Of a checkpoint's id or path below checkpoints/; None where it names none."""
    if len(parts) >= 2:
        return parts[0], parts[1]
    with contextlib.suppress(NotFound, CheckpointCorrupt):
        info = manifest.find(home, "/".join(parts))
        return info.run, info.stage
    return None


def _preparations(home: Path, specs: Iterable[RunSpec], name: str, stages: Sequence[Stage]) -> list[History]:
    """Those that made what the stages name: the newest of each name. Before there are stages, what bears the run's."""
    specs = list(specs)
    wanted: dict[str, set[str]] = {
        kind: {
            parts[0]
            for stage in stages
            for job in stage.jobs
            if (parts := _parts(home, job.spec, folder, str(job.spec.config.get(kind) or "")))
        }
        for kind, folder in (("dataset", "datasets"), ("tokenizer", "tokenizers"))
    }
    if not stages:
        wanted["tokenizer"] = {name}
    chosen = []
    for kind, names in wanted.items():
        made = [spec for spec in specs if spec.kind == kind and (spec.config.get("name") or spec.name) in names]
        by_name = {spec.config.get("name") or spec.name: spec for spec in made}  # ids sort by age
        chosen += list(by_name.values())
    return _histories(home, chosen)


def _by_step(curves: Curves) -> dict[int, dict[str, float]]:
    steps: dict[int, dict[str, float]] = {}
    for name in curves.names():
        for step, value in curves.points(name):
            steps.setdefault(int(step), {})[name] = value
    return dict(sorted(steps.items()))


def _known_runs(home: Path, specs: Iterable[RunSpec]) -> list[str]:
    trained = {_run_of(spec) for spec in specs if spec.kind in STAGE_KINDS}
    folder = manifest.checkpoints_dir(home)
    saved = {path.parent.parent.parent.name for path in folder.glob(f"*/*/step_*/{manifest.MANIFEST}")}
    return sorted(trained | saved)


def _unknown(name: str, known: Sequence[str]) -> str:
    """What is most like the name comes first: a pipeline's name begins its runs'."""
    begins = [run for run in known if run.startswith(name)]
    alike = difflib.get_close_matches(name, known, n=3)
    named = list(dict.fromkeys([*begins, *alike, *known]))
    listed = ", ".join(named[:_NUM_NAMED]) + (f" and {len(named) - _NUM_NAMED} more" if len(named) > _NUM_NAMED else "")
    return f"no run is called {name!r}; there is {listed or 'none yet: train one first'}."
