"""How long the profile `quick` takes to what the reference recipe reaches in ten minutes: whole jobs, by the clock.

    python -m tests.bench.time_to_quality [DATASET] [--minutes 10] [--batches 4096,8192,16384] [--ratios 0.42,0.5,0.7]

Every run is a job of its own and ends with its schedule: its steps come from a pace that a short job finds, which
leaves compiled code in the cache, too. The reference's best batch sets the validation bits per byte to be reached;
`quick` has the first of the ratios' time for it, then the next, until it does. Nothing else may run on the machine.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from nanochat.jobs.profiles import load_profile
from nanochat.protocol.jobs import JobKind, PretrainConfig, RunSpec, TokenizerConfig
from nanochat.protocol.progress import Metric, Progress, progress_line
from nanochat.recipes.job import progress_path, tokenizers_dir
from tests.bench.loading import dataset_folder

PACE_STEPS = 16
_SLOW_STEPS = 4  # the first ones compile, and touch memory that later ones find ready
_SAY_EVERY_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Run:
    """`train_seconds` are those of the steps, `job_seconds` those of the process, with its start and evaluation."""

    name: str
    num_steps: int
    tokens: int
    train_seconds: float
    job_seconds: float
    val_bpb: float


class Bench:
    """A home with the tokenizer of the profile in it, whose model the reference trains too."""

    def __init__(self, home: Path, dataset: Path) -> None:
        stages = {stage.kind: stage.config for stage in load_profile("quick").stages}
        self.home = home
        self.quick = {**stages["pretrain"], "dataset": str(dataset), "tokenizer": str(tokenizers_dir(home) / "quick")}
        self._job("tokenizer", "quick", {**stages["tokenizer"], "dataset": str(dataset)})

    def reference(self, batch_tokens: int) -> dict[str, Any]:
        """The recipe of the defaults: of `quick` it has the sizes of the model and what is read alone."""
        sizes = ("dataset", "tokenizer", "depth", "head_dim", "max_seq_len", "eval_every", "eval_tokens")
        return {name: self.quick[name] for name in sizes} | {
            "device_batch_size": 8,
            "total_batch_size": batch_tokens,
        }

    def run(self, name: str, config: dict[str, Any], seconds: float) -> Run:
        """A run of as many steps as this time takes."""
        self._job("pretrain", f"{name}-pace", {**config, "num_iterations": PACE_STEPS, "eval_tokens": 4096})
        ends = [
            line.values["train_seconds"] for line in self._metrics(f"{name}-pace") if "train_seconds" in line.values
        ]
        pace_s = pace(ends)
        num_steps = int(seconds / pace_s)
        say(f"{name}: {pace_s:.3f} s a step, {num_steps} steps")
        job_seconds = self._job("pretrain", name, {**config, "num_iterations": num_steps})
        values: dict[str, float] = {}
        for line in self._metrics(name):
            values |= line.values
        found = Run(
            name=name,
            num_steps=num_steps,
            tokens=num_steps * config["total_batch_size"],
            train_seconds=values["train_seconds"],
            job_seconds=job_seconds,
            val_bpb=values["val_bpb"],
        )
        say(f"{name}: val_bpb {found.val_bpb:.4f}; {found.train_seconds:.0f} s of steps, {job_seconds:.0f} s in all")
        return found

    def _job(self, kind: JobKind, name: str, config: dict[str, Any]) -> float:
        """Run it to its end; gives its seconds. Raises CalledProcessError where it fails, and prints its log's end."""
        checked = (TokenizerConfig if kind == "tokenizer" else PretrainConfig).model_validate(config)
        spec = RunSpec(job_id=_job_id(name), kind=kind, name=name, config=checked.model_dump(), home=str(self.home))
        file, log = self.home / f"{name}.json", self.home / f"{name}.log"
        file.write_text(spec.model_dump_json())
        command = [sys.executable, "-m", "nanochat.recipes", kind, "--spec", str(file)]
        start = time.monotonic()
        with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT) as process:
            while True:
                try:
                    process.wait(timeout=_SAY_EVERY_S)
                    break
                except subprocess.TimeoutExpired:
                    say(f"{name}: {time.monotonic() - start:.0f} s, {self._last_step(name)}")
        if process.returncode:
            print(log.read_text()[-2000:], flush=True)
            raise subprocess.CalledProcessError(process.returncode, command)
        return time.monotonic() - start

    def _last_step(self, name: str) -> str:
        """For whoever watches."""
        steps = [line for line in self._lines(name) if isinstance(line, Progress)]
        return f"step {steps[-1].step} of {steps[-1].num_steps}" if steps else "no step yet"

    def _metrics(self, name: str) -> list[Metric]:
        return [line for line in self._lines(name) if isinstance(line, Metric)]

    def _lines(self, name: str) -> list[Any]:
        path = progress_path(RunSpec(job_id=_job_id(name), kind="pretrain", name=name, config={}, home=str(self.home)))
        whole = path.read_text().split("\n")[:-1] if path.exists() else []  # what is being written is no line yet
        return [progress_line.validate_json(line) for line in whole]


def compare(bench: Bench, seconds: float, batches: Sequence[int], ratios: Sequence[float]) -> tuple[list[Run], bool]:
    """All runs, and whether `quick` reached the reference's best."""
    runs = [bench.run(f"reference-{batch}", bench.reference(batch), seconds) for batch in batches]
    best = min(runs, key=lambda run: run.val_bpb)
    for ratio in ratios:
        quick = bench.run(f"quick-{ratio:g}", bench.quick, ratio * seconds)
        runs.append(quick)
        if quick.val_bpb <= best.val_bpb:
            steps, jobs = quick.train_seconds / best.train_seconds, quick.job_seconds / best.job_seconds
            say(f"reached {best.name}'s {best.val_bpb:.4f} in {steps:.3f} of its steps' time, {jobs:.3f} of its job's")
            return runs, True
    say(f"{best.name}'s {best.val_bpb:.4f} was not reached")
    return runs, False


def pace(ends: Sequence[float]) -> float:
    """Seconds of the median step, from the times at which steps ended; the first ones are left out."""
    return median(after - before for before, after in pairwise(ends[_SLOW_STEPS:]))


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def _job_id(name: str) -> str:
    return f"job_{name}"


def main() -> int:
    """0 where the reference was reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, nargs="?", help="A folder of shards; else the built-in dataset.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--batches", default="4096,8192,16384")
    parser.add_argument("--ratios", default="0.42,0.5,0.7")
    parser.add_argument("--home", type=Path, help="A folder for what is made; else a temporary one.")
    options = parser.parse_args()
    home = options.home or Path(tempfile.mkdtemp(prefix="time-to-quality-"))
    home.mkdir(parents=True, exist_ok=True)
    batches = [int(batch) for batch in options.batches.split(",")]
    ratios = [float(ratio) for ratio in options.ratios.split(",")]
    with dataset_folder(options.dataset) as dataset:
        runs, was_reached = compare(Bench(home, dataset.resolve()), options.minutes * 60, batches, ratios)
    (home / "time_to_quality.json").write_text(json.dumps([asdict(run) for run in runs], indent=2))
    say(f"written to {home / 'time_to_quality.json'}")
    return 0 if was_reached else 1


if __name__ == "__main__":
    raise SystemExit(main())
