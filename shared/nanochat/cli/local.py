"""Without any service: chat with a checkpoint, and run a recipe, in this process or under torchrun.

The only part of the command line that imports torch, and only when it is asked to.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

from nanochat.cli.chat import Answerer, Sampling
from nanochat.cli.settings import CliSettings
from nanochat.cores import usable_cores
from nanochat.errors import InvalidConfig, NotFound
from nanochat.protocol.generate import Delta, Message
from nanochat.protocol.jobs import CONFIG_BY_KIND, Job, JobKind, RunSpec
from nanochat.references import References

RECIPE_KINDS = tuple(kind for kind in CONFIG_BY_KIND if kind != "pipeline")


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

    given = Path(reference).expanduser()
    folder = given if given.is_dir() else _references(settings).checkpoint(reference)
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


def run_recipe(settings: CliSettings, kind: str, name: str, config: dict[str, Any], num_processes: int) -> int:
    """Run one recipe to its end under torchrun; its exit status. Raises InvalidConfig naming the key."""
    if kind not in RECIPE_KINDS:
        raise InvalidConfig(f"{kind!r} cannot run locally; use one of {', '.join(RECIPE_KINDS)}.", param="kind")
    job_kind = cast(JobKind, kind)
    if "run" in CONFIG_BY_KIND[kind].model_fields:
        config = {"run": name, **config}
    job_id = f"local_{time.strftime('%Y%m%d_%H%M%S')}"
    spec = RunSpec(
        job_id=job_id,
        kind=job_kind,
        name=name,
        config=_references(settings).resolve(job_kind, config),
        home=str(settings.home_dir),
    )
    folder = settings.home_dir / "jobs" / job_id
    folder.mkdir(parents=True)
    spec_file = folder / "spec.json"
    spec_file.write_text(spec.model_dump_json(indent=2))
    torchrun = ["torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]
    recipe = ["-m", "nanochat.recipes", kind, "--spec", str(spec_file)]
    # torchrun alone would give each of several processes one thread.
    threads = str(max(1, usable_cores() // num_processes))
    environment = {"OMP_NUM_THREADS": threads, **os.environ}
    return subprocess.call([sys.executable, "-m", *torchrun, *recipe], env=environment)


def _references(settings: CliSettings) -> References:
    def no_job(job_id: str) -> Job:
        raise NotFound(f"{job_id} is a job of a stack; name its output instead (nanochat jobs show {job_id}).")

    return References(settings.home_dir, settings.resolved_data_roots, no_job)
