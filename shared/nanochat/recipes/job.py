"""What every recipe is given: its job's spec, where to report, when to stop; and where the things it names lie.

The worker hands over references as absolute paths. By hand, names under the job's home work as well.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nanochat.checkpoint import manifest
from nanochat.data import builtin
from nanochat.data.registry import Dataset, resolve_dataset
from nanochat.protocol.jobs import RunSpec
from nanochat.recipes.distributed import Ranks
from nanochat.recipes.progress import ProgressWriter
from nanochat.recipes.stop import StopSignal
from nanochat.tokenizer.bpe import Tokenizer


@dataclass(kw_only=True)
class JobContext:
    spec: RunSpec
    progress: ProgressWriter
    stop: StopSignal = field(default_factory=StopSignal)
    ranks: Ranks = field(default_factory=Ranks)

    @property
    def home(self) -> Path:
        return Path(self.spec.home)

    def dataset(self, reference: str) -> Dataset:
        """A dataset that can be read: checked, and made if it is a built-in one not made yet. Raises DataError."""
        # Whether a path may be read at all was decided when the job was submitted, so any is allowed here.
        return builtin.prepare(resolve_dataset(reference, self.home, roots=(Path("/"),)))

    def tokenizer(self, reference: str) -> Tokenizer:
        """Raises NotFound or DataError."""
        path = Path(reference)
        return Tokenizer.load(path if path.is_absolute() else tokenizers_dir(self.home) / reference)

    def checkpoint_folder(self, reference: str) -> Path:
        """Raises NotFound or CheckpointCorrupt."""
        path = Path(reference)
        return path if path.is_absolute() else manifest.find(self.home, reference).folder


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a recipe that succeeded gives: `output` as in protocol.progress.Result, and its last metrics."""

    output: str | None
    values: dict[str, float] = field(default_factory=dict)


def tokenizers_dir(home: Path) -> Path:
    return home / "tokenizers"


def progress_path(spec: RunSpec) -> Path:
    return Path(spec.home) / "jobs" / spec.job_id / "progress.jsonl"


def describe(values: dict[str, Any]) -> dict[str, Any]:
    """A config without its nulls, for a log line."""
    return {name: value for name, value in values.items() if value is not None}
