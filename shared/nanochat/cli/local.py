"""Without any service: chat with a checkpoint, and run a job or a profile's stages under torchrun.

The only part of the command line that imports torch, and only when it is asked to.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from nanochat.cli.chat import Answerer, Sampling
from nanochat.cli.dry_run import this_cpu
from nanochat.cli.settings import CliSettings
from nanochat.cli.terminal import say
from nanochat.cores import usable_cores
from nanochat.errors import InvalidConfig, NotFound
from nanochat.hardware import Hardware
from nanochat.jobs.plans import plan
from nanochat.jobs.views import to_job
from nanochat.protocol.generate import Delta, Message
from nanochat.protocol.jobs import Job, JobSpec, RunSpec
from nanochat.protocol.progress import Result, progress_line
from nanochat.references import References

# As recipes/__main__.py knows them.
RECIPE_KINDS = ("dataset", "tokenizer", "pretrain", "sft", "rl", "evaluate", "report")


def local_answerer(settings: CliSettings, reference: str, sampling: Sampling) -> Answerer:
    """Loads the checkpoint (an id under $NANOCHAT_HOME, or any folder) and answers with it."""
    from nanochat.checkpoint import store
    from nanochat.engine.generate import Engine
    from nanochat.engine.params import SamplingParams
    from nanochat.model.gpt import GPT
    from nanochat.model.names import load_tensors
    from nanochat.recipes.device import choose_device
    from nanochat.tokenizer.chat import render_prompt
    from nanochat.tools.calculator import Calculator

    folder = checkpoint_folder(settings, reference)
    device = choose_device()
    checkpoint = store.load(folder, device.device)
    model = GPT(checkpoint.config, device.dtype).to(device.device)
    load_tensors(model, checkpoint.model_tensors)
    engine = Engine.of(model.eval(), checkpoint.tokenizer, Calculator(num_workers=1), num_slots=1)
    params = SamplingParams(temperature=sampling.temperature, top_k=sampling.top_k, max_tokens=sampling.max_tokens)

    async def answer(messages: list[Message]) -> AsyncIterator[str]:
        for event in engine.stream(render_prompt(checkpoint.tokenizer, messages), params):
            if isinstance(event, Delta):
                yield event.text
            await asyncio.sleep(0)  # where a Ctrl-C is noticed

    return answer


def checkpoint_folder(settings: CliSettings, reference: str) -> Path:
    """Of an id under $NANOCHAT_HOME, or any folder. Raises NotFound, InvalidConfig or CheckpointCorrupt."""
    given = Path(reference).expanduser()
    return given if given.is_dir() else _references(settings, {}).checkpoint(reference)


def run_locally(settings: CliSettings, spec: JobSpec) -> int:
    """Run a job under torchrun, or a pipeline's stages one after the other; the first exit status that is not 0.

    Raises InvalidConfig naming the key, of a later stage too before the first one starts.
    """
    jobs = [to_job(row) for row in plan(spec, time.time())]
    done: dict[str, Job] = {}
    references = _references(settings, done)
    waiting = [job for job in jobs if job.kind != "pipeline"]
    for position, job in enumerate(waiting):
        if job.kind not in RECIPE_KINDS:
            raise InvalidConfig(f"{job.kind!r} cannot run locally; use one of {', '.join(RECIPE_KINDS)}.", param="kind")
        references.resolve(job.kind, job.config, pending=waiting[:position])
    for job in waiting:
        say(f"{job.kind} {job.name}")
        status = _run_recipe(settings, job, references)
        if status:
            return status
        done[job.id] = job.model_copy(update={"status": "succeeded", "output": _output(settings, job)})
    return 0


def measured_cpu() -> Hardware | None:
    """This machine without its GPU; None where torch is not installed."""
    try:
        from nanochat.optim.peak_flops import peak_flops
    except ImportError:
        return None
    flops = peak_flops("cpu")
    assert flops is not None
    return this_cpu(flops, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _run_recipe(settings: CliSettings, job: Job, references: References) -> int:
    spec = RunSpec(
        job_id=job.id,
        kind=job.kind,
        name=job.name,
        config=references.resolve(job.kind, job.config),
        home=str(settings.home_dir),
    )
    folder = _folder(settings, job)
    folder.mkdir(parents=True)
    spec_file = folder / "spec.json"
    spec_file.write_text(spec.model_dump_json(indent=2))
    # torchrun would leave a folder in the temporary one for logs that nobody asked it to write.
    options = ["--standalone", f"--nproc-per-node={job.num_processes}", f"--log-dir={os.devnull}"]
    recipe = ["-m", "nanochat.recipes", job.kind, "--spec", str(spec_file)]
    # torchrun alone would give each of several processes one thread.
    threads = str(max(1, usable_cores() // job.num_processes))
    environment = {"OMP_NUM_THREADS": threads, **os.environ}
    return subprocess.call([sys.executable, "-m", "torch.distributed.run", *options, *recipe], env=environment)


def _folder(settings: CliSettings, job: Job) -> Path:
    return settings.home_dir / "jobs" / job.id


def _output(settings: CliSettings, job: Job) -> str | None:
    """What a recipe that succeeded says it made."""
    last = (_folder(settings, job) / "progress.jsonl").read_text().splitlines()[-1]
    result = progress_line.validate_json(last)
    assert isinstance(result, Result), f"{job.id} succeeded without saying so"
    return result.output


def _references(settings: CliSettings, done: Mapping[str, Job]) -> References:
    """`done`: jobs of this very run, by id."""

    def find_job(job_id: str) -> Job:
        if job_id in done:
            return done[job_id]
        raise NotFound(f"{job_id} is a job of a stack; name its output instead (nanochat jobs show {job_id}).")

    return References(settings.home_dir, settings.resolved_data_roots, find_job)
