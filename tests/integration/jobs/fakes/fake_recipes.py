"""Recipes that train nothing and do what $NANOCHAT_HOME/behaviour.json tells them, by the job's kind.

{"pretrain": {"steps": 20, "step_s": 0.05, "fail_at": 3, "exit_at": [3, 7], "ignore_term": true, "grandchild": true}}
Every rank notes its start in ranks.jsonl. Step and resume are kept in jobs/<id>/step.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from nanochat.checkpoint import manifest
from nanochat.config import GPTConfig
from nanochat.protocol.jobs import RunSpec
from nanochat.protocol.progress import CheckpointWritten, Failure, Metric, Progress, Result

stopping = False


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind")
    parser.add_argument("--spec", type=Path)
    arguments = parser.parse_args()
    spec = RunSpec.model_validate_json(arguments.spec.read_bytes())
    home, rank = Path(spec.home), int(os.environ.get("RANK", "0"))
    file = home / "behaviour.json"
    behaviour: dict[str, Any] = json.loads(file.read_text()).get(spec.kind, {}) if file.exists() else {}
    ignores = behaviour.get("ignore_term", False)
    signal.signal(signal.SIGTERM, signal.SIG_IGN if ignores else on_term)
    pids = [os.getpid()]
    if behaviour.get("grandchild"):
        code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
        pids.append(subprocess.Popen([sys.executable, "-c", code], start_new_session=True).pid)
    with (home / "ranks.jsonl").open("a") as log:
        log.write(json.dumps({"job": spec.job_id, "kind": spec.kind, "attempt": spec.attempt, "pids": pids}) + "\n")
    print(f"{spec.kind} rank {rank} attempt {spec.attempt}", flush=True)
    return train(spec, home, behaviour, rank)


def train(spec: RunSpec, home: Path, behaviour: dict[str, Any], rank: int) -> int:
    steps, kept = behaviour.get("steps", 3), home / "jobs" / spec.job_id / "step"
    first = int(kept.read_text()) if spec.attempt > 1 and kept.exists() else 0
    for step in range(first, steps):
        if stopping:
            return 75
        say(spec, rank, Progress(time=time.time(), step=step, num_steps=steps, tokens=step * 10, tokens_per_second=5.0))
        say(spec, rank, Metric(time=time.time(), step=step, values={"train_loss": 1.0 / (step + 1)}))
        if step == behaviour.get("fail_at"):
            say(spec, rank, Failure(time=time.time(), code="data_error", message="the shard is broken."))
            return 1
        if behaviour.get("exit_at", [None])[0] == step:
            code = behaviour["exit_at"][1]
            if code < 0:
                os.kill(os.getpid(), -code)
            print("the last words", flush=True)
            return int(code)
        time.sleep(behaviour.get("step_s", 0.01))
        if rank == 0:
            kept.write_text(str(step + 1))
    output = make_output(spec, home, steps, rank) if rank == 0 else None
    say(spec, rank, Result(time=time.time(), output=output, values={"score": 0.5}))
    return 0


def make_output(spec: RunSpec, home: Path, steps: int, rank: int) -> str | None:
    if spec.kind == "tokenizer":
        folder = home / "tokenizers" / spec.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.json").write_text("{}")
        return spec.name
    if spec.kind in ("evaluate", "report"):
        return None
    run = spec.config["run"]
    checkpoint = make_checkpoint(home, run, spec.kind, steps)
    say(spec, rank, CheckpointWritten(time=time.time(), step=steps, checkpoint=checkpoint))
    return checkpoint


def make_checkpoint(home: Path, run: str, stage: str, step: int) -> str:
    checkpoint = manifest.checkpoint_id(run, stage, step)
    folder = manifest.checkpoints_dir(home) / checkpoint
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(GPTConfig(n_layer=1, n_head=1, n_kv_head=1, n_embd=64).to_dict()))
    (folder / "state.json").write_text(json.dumps({"metrics": {"val_bpb": 1.5}}))
    (folder / "model.safetensors").write_bytes(b"weights")
    manifest.write(folder, run=run, stage=stage, step=step, created=time.time())
    return checkpoint


def say(spec: RunSpec, rank: int, line: Progress | Metric | CheckpointWritten | Failure | Result) -> None:
    if rank == 0:
        with (Path(spec.home) / "jobs" / spec.job_id / "progress.jsonl").open("a") as file:
            file.write(line.model_dump_json() + "\n")


def on_term(*_: object) -> None:
    global stopping
    stopping = True


if __name__ == "__main__":
    sys.exit(main())
