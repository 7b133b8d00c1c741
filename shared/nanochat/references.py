"""What the names in a job's config stand for: dataset, tokenizer, checkpoint, conversations, each as a checked path.

A reference is a name, a job's id (its output), or an absolute path under an allowed folder. The trainer resolves a
config to refuse a bad one when it is submitted, the worker again when it starts. Torch-free.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nanochat.checkpoint import manifest
from nanochat.data.registry import resolve_dataset
from nanochat.errors import CheckpointCorrupt, DataError, InvalidConfig, InvalidRequest, NotFound
from nanochat.protocol.jobs import DatasetConfig, EvaluateConfig, Job, JobKind, parse_config

# What a job of a kind leaves behind for others.
OUTPUT_OF_KIND: dict[str, str] = {
    "dataset": "dataset",
    "tokenizer": "tokenizer",
    "pretrain": "checkpoint",
    "sft": "checkpoint",
    "rl": "checkpoint",
    "pipeline": "checkpoint",
}


class References:
    """Resolves against one home. `find_job` gives a job by id, or raises NotFound."""

    def __init__(self, home: Path, roots: Sequence[Path], find_job: Callable[[str], Job]) -> None:
        self._home = home
        self._roots = roots
        self._find_job = find_job

    def resolve(self, kind: JobKind, values: dict[str, Any], pending: Collection[Job] = ()) -> dict[str, Any]:
        """The config with every reference as a path: a dataset's folder, tokenizer.json, a checkpoint's folder, a
        JSONL file or folder.

        References to `pending` jobs (earlier stages of the same pipeline) stay as they are. Raises InvalidConfig or
        DataError naming config.<key>. A dataset that is built on first use need not be there yet.
        """
        config = parse_config(kind, values)
        resolved = dict(values)
        for key, resolve in (
            ("dataset", self.dataset),
            ("tokenizer", self.tokenizer),
            ("checkpoint", self.checkpoint),
        ):
            reference = getattr(config, key, None)
            if reference is not None:
                resolved[key] = self._one(f"config.{key}", key, reference, resolve, pending)
        if "mixture" in resolved:
            resolved["mixture"] = [
                self._mixture_item(f"config.mixture.{index}.file", item) for index, item in enumerate(values["mixture"])
            ]
        if isinstance(config, DatasetConfig) and config.is_repackaging:
            resolved["source"] = self._one("config.source", "source", str(config.source), self.source, ())
        if isinstance(config, EvaluateConfig) and config.dataset is None and "bpb" in config.evals:
            resolved["dataset"] = self._recorded_dataset(resolved["checkpoint"], pending)
        return resolved

    def dataset(self, reference: str) -> Path:
        """The folder of a name under datasets/, of a built-in dataset, or of a path. Raises DataError."""
        with _looking_at(reference):
            return resolve_dataset(reference, self._home, self._roots).folder

    def tokenizer(self, reference: str) -> Path:
        """The tokenizer.json of a name under tokenizers/, or of a path to it or its folder. Raises InvalidConfig."""
        with _looking_at(reference):
            path = self._inside(self._path("tokenizers", reference))
            path = self._inside(path / "tokenizer.json") if path.is_dir() else path
            if not path.is_file():
                raise InvalidConfig(f"tokenizer {reference!r} is not there: no file {path}. Train one first.")
            return path

    def checkpoint(self, reference: str) -> Path:
        """The folder of a complete checkpoint: by id (run/stage/step_000500), run/stage, run, or path."""
        return self.checkpoint_info(reference).folder

    def checkpoint_info(self, reference: str) -> manifest.CheckpointInfo:
        """As checkpoint(); a job's id is taken too. Raises NotFound, InvalidConfig or CheckpointCorrupt."""
        reference = self._output("checkpoint", reference)
        with _looking_at(reference):
            if not reference.startswith("/"):
                return manifest.find(self._home, reference)
            folder = self._inside(Path(reference))
            if not (folder / manifest.MANIFEST).is_file():
                raise NotFound(f"{folder} is no complete checkpoint: it has no {manifest.MANIFEST}.")
            return manifest.read_info(folder)

    def conversations(self, reference: str) -> Path:
        """A JSONL file, or a folder with at least one, each inside the allowed folders. Raises DataError."""
        with _looking_at(reference):
            path = self._inside(self._path("datasets", reference))
            if not path.exists():
                raise DataError(f"{path} does not exist; name a JSONL file of conversations, or a folder of them.")
            files = [file for file in path.iterdir() if file.suffix == ".jsonl"] if path.is_dir() else [path]
            if not files:
                raise DataError(f"folder {path} holds no *.jsonl file; put the conversations there.")
            for file in files:
                self._inside(file)
            return path

    def source(self, reference: str) -> Path:
        """A file or folder of text, inside the allowed folders. Raises InvalidConfig or DataError."""
        with _looking_at(reference):
            path = self._inside(Path(reference))
            if not path.exists():
                raise DataError(f"{path} does not exist; name a file or a folder of JSONL, text or parquet.")
            return path

    def _one(
        self, param: str, wanted: str, reference: str, resolve: Callable[[str], Path], pending: Collection[Job]
    ) -> str:
        ahead = next((job for job in pending if job.id == reference), None)
        try:
            if ahead is not None:
                _check_output(ahead, wanted)
                return reference
            return str(resolve(self._output(wanted, reference)))
        except (InvalidRequest, NotFound, CheckpointCorrupt) as exc:
            error = DataError if isinstance(exc, DataError) else InvalidConfig
            raise error(f"{param}: {exc.message}", param=param) from exc

    def _mixture_item(self, param: str, item: dict[str, Any]) -> dict[str, Any]:
        if item.get("file") is None:
            return item
        return {**item, "file": self._one(param, "file", item["file"], self.conversations, ())}

    def _recorded_dataset(self, checkpoint: str, pending: Collection[Job]) -> str | None:
        """What a checkpoint was trained on, under the same rules as a dataset that the job names.

        None where it does not say, or is still to be made. Raises InvalidConfig or DataError.
        """
        if any(job.id == checkpoint for job in pending):
            return None
        recorded = manifest.read_state(Path(checkpoint)).get("dataset")
        if not isinstance(recorded, str):
            return None
        try:
            return self._one("config.dataset", "dataset", recorded, self.dataset, ())
        except InvalidRequest as exc:
            message = f"{exc.message} The checkpoint was trained on it; give dataset to use another one."
            raise type(exc)(message, param=exc.param) from exc

    def _output(self, wanted: str, reference: str) -> str:
        """What a job left, where the reference is a job's id; any other reference as it is."""
        if not reference.startswith("job_") or "/" in reference:
            return reference
        job = self._find_job(reference)
        _check_output(job, wanted)
        if job.status != "succeeded":
            hint = f" Its last checkpoint is {job.checkpoint}; name that to use it." if job.checkpoint else ""
            raise InvalidConfig(f"job {job.id} is {job.status}, so it has no output yet.{hint}")
        output = job.checkpoint if job.kind == "pipeline" else job.output
        if output is None:
            raise InvalidConfig(f"job {job.id} ({job.kind}) succeeded without leaving a {wanted}.")
        return output

    def _path(self, folder: str, reference: str) -> Path:
        """An absolute path as it is, a name as one in a folder of $NANOCHAT_HOME. Raises InvalidConfig."""
        if reference.startswith("/"):
            return Path(reference)
        if "/" in reference or reference.startswith("."):
            raise InvalidConfig(f"{reference!r} is neither a name nor an absolute path.")
        return self._home / folder / reference

    def _inside(self, path: Path) -> Path:
        """The path with symbolic links followed. Raises InvalidConfig unless an allowed folder holds it."""
        resolved = path.resolve()
        if not any(resolved.is_relative_to(root) for root in self._roots):
            raise InvalidConfig(
                f"{path} leads to {resolved}, outside the allowed folders {', '.join(map(str, self._roots))}; "
                "add its folder to NANOCHAT_DATA_ROOTS."
            )
        return resolved


@contextmanager
def _looking_at(reference: str) -> Iterator[None]:
    """What the file system itself refuses to look at, as InvalidConfig: too long, forbidden, a circle of links."""
    shown = repr(reference if len(reference) <= 80 else reference[:77] + "...")
    if "\0" in reference:
        raise InvalidConfig(f"{shown} holds a NUL character, which no path can; remove it.")
    try:
        yield
    except OSError as exc:
        reason = exc.strerror or type(exc).__name__
        raise InvalidConfig(f"{shown} cannot be looked at: {reason}. Check the path and its permissions.") from exc
    except RuntimeError as exc:  # pathlib's word for links that lead in a circle
        raise InvalidConfig(f"{shown} cannot be followed: {exc}. Name the folder itself.") from exc


def _check_output(job: Job, wanted: str) -> None:
    """Raises InvalidConfig when a job of that kind leaves something else, or nothing."""
    found = OUTPUT_OF_KIND.get(job.kind)
    if found != wanted:
        leaves = f"leaves a {found}" if found else "leaves nothing that others can use"
        raise InvalidConfig(f"job {job.id} is of kind {job.kind}, which {leaves}; a {wanted} is needed here.")
