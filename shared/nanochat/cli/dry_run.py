"""`nanochat train ... --dry-run`: what each stage will be, need and cost, in four tables, with nothing started."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat.cli.terminal import print_table, say
from nanochat.config import GPTConfig
from nanochat.errors import InvalidConfig
from nanochat.hardware import HARDWARE, PRICE_SOURCE, Hardware
from nanochat.jobs.plans import plan
from nanochat.jobs.views import to_job
from nanochat.numbers import count, duration
from nanochat.planning.cost import CPU_MFU, GPU_MFU, estimate
from nanochat.planning.stages import StagePlan, plan_stages
from nanochat.protocol.jobs import Job, JobSpec
from nanochat.sizes import flops_per_token, parameters_by_group
from nanochat.tokenizer.bpe import Tokenizer

CPU = "this CPU"
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """`hardware`: names of the table, "this CPU" among them; none: all. price: US dollars a device and hour."""

    hardware: Sequence[str] = ()
    mfu: float | None = None
    price: float | None = None


def dry_run(spec: JobSpec, home: Path, cpu: Hardware | None, assumptions: Assumptions) -> None:
    """Print. `cpu` is this machine's, as measured; None where it was not. Raises InvalidConfig."""
    devices = _chosen([*HARDWARE, *([cpu] if cpu else [])], assumptions.hardware)
    jobs = [to_job(row) for row in plan(spec, now=0.0)]
    is_cpu_alone = [device.name for device in devices] == [CPU]
    stages = plan_stages(jobs, lambda name: _vocab_size(home, name), "cpu" if is_cpu_alone else "cuda")
    compute_bytes = 4 if is_cpu_alone else 2
    _say_what(jobs[0], stages)
    print_table(*_sizes(stages), empty="no stage")
    trained = [stage for stage in stages if stage.model is not None]
    if not trained:
        return
    say("")
    print_table(*_parameters(trained), empty="")
    say("")
    say(f"Memory of a rank in GiB, {'float32' if is_cpu_alone else 'bfloat16 unless the stage says otherwise'}:")
    print_table(*_memory(trained, compute_bytes), empty="")
    say("")
    print_table(*_costs(trained, devices, assumptions), empty="")
    _say_assumptions(stages, devices, assumptions)


def this_cpu(peak_flops: float, memory_bytes: int) -> Hardware:
    return Hardware(name=CPU, peak_flops=peak_flops, memory_gib=memory_bytes // GIB)


def _chosen(devices: Sequence[Hardware], names: Sequence[str]) -> list[Hardware]:
    by_name = {device.name.lower(): device for device in devices}
    for name in names:
        if name.lower() not in by_name:
            known = ", ".join(device.name for device in devices)
            raise InvalidConfig(f"hardware {name!r} is not in the table; choose from {known}.", param="hardware")
    return [by_name[name.lower()] for name in names] or list(devices)


def _vocab_size(home: Path, reference: str) -> int:
    """Of a tokenizer that lies here, by name or path; else the default that a tokenizer is trained with."""
    path = Path(reference) if reference.startswith("/") else home / "tokenizers" / reference
    file = path / "tokenizer.json" if path.is_dir() else path
    if file.is_file():
        return Tokenizer.load(file).vocab_size
    size = GPTConfig().vocab_size
    say(f"No tokenizer {reference!r} here: a vocabulary of {size} is assumed.")
    return size


def _say_what(job: Job, stages: Sequence[StagePlan]) -> None:
    ranks = max(stage.num_ranks for stage in stages)
    what = f"profile {job.config['profile']}" if job.kind == "pipeline" else job.kind
    say(f"{what}, {ranks} {'rank' if ranks == 1 else 'ranks'}; nothing is started.")
    say("")


Rows = tuple[tuple[str, ...], list[list[str]]]


def _sizes(stages: Sequence[StagePlan]) -> Rows:
    heads = ("stage", "depth", "width", "tokens", "batch", "micro", "steps", "FLOPs/tok", "FLOPs")
    rows = []
    for stage in stages:
        model, rows_at_once = stage.model, stage.device_batch_size
        micro = f"{stage.num_micro_steps}x{rows_at_once}x{stage.sequence_len}" if rows_at_once else None
        cells: list[Any] = [
            model and model.n_layer,
            model and model.n_embd,
            None if stage.tokens is None else count(stage.tokens),
        ]
        cells += [stage.batch_tokens, micro, stage.num_steps]
        cells += [model and _scientific(flops_per_token(model)), _scientific(stage.flops)]
        rows.append([stage.name, *("-" if cell is None else str(cell) for cell in cells)])
    return heads, rows


def _parameters(stages: Sequence[StagePlan]) -> Rows:
    """One row a model: stages that share it are named together."""
    names: dict[GPTConfig, list[str]] = {}
    for stage in stages:
        if stage.model is not None:
            names.setdefault(stage.model, []).append(stage.name)
    groups = list(parameters_by_group(next(iter(names))))
    rows = []
    for model, shared_by in names.items():
        counts = parameters_by_group(model)
        label = shared_by[0] if len(shared_by) <= 1 else f"{shared_by[0]} and {len(shared_by) - 1} more"
        rows.append([label, *(count(counts[group]) for group in groups), count(sum(counts.values()))])
    return ("parameters", *groups, "in all"), rows


def _memory(stages: Sequence[StagePlan], compute_bytes: int) -> Rows:
    rows = []
    for stage in stages:
        memory = stage.memory(compute_bytes)
        if memory is not None:
            parts = (memory.weights, memory.gradients, memory.optimizer, memory.activations, memory.total)
            rows.append([stage.name, *(f"{part / GIB:.2f}" for part in parts)])
    return ("stage", "weights", "gradients", "optimizer", "activations", "in all"), rows


def _costs(stages: Sequence[StagePlan], devices: Sequence[Hardware], assumptions: Assumptions) -> Rows:
    """Of all stages together, a device a rank."""
    ranks = max(stage.num_ranks for stage in stages)
    flops = sum(stage.flops or 0 for stage in stages)
    wants_fp8 = any(stage.precision == "fp8" for stage in stages)
    rows = []
    for device in devices:
        memories = [stage.memory(4 if device.name == CPU else 2) for stage in stages]
        needed = max(memory.total for memory in memories if memory) / GIB
        if device.name == CPU:
            needed *= ranks  # which share it
        mfu = _mfu(device, assumptions)
        price = device.price_per_hour if assumptions.price is None else assumptions.price
        num_devices = 1 if device.name == CPU else ranks  # ranks share a CPU
        cost = estimate(flops, device, num_devices=num_devices, mfu=mfu, price=price)
        rows.append(
            [
                device.name if device.name == CPU else f"{ranks} x {device.name}",
                f"{device.peak_flops / 1e12:,.4g}",
                f"{device.memory_gib}",
                "no" if needed > device.memory_gib else "yes",
                *(["yes" if device.has_fp8 else "no"] if wants_fp8 else []),
                f"{mfu:.0%}",
                _long(cost.seconds),
                "-" if price is None else f"{price:.2f}",
                "-" if cost.dollars is None else f"${cost.dollars:,.2f}",
            ]
        )
    fp8 = ("FP8",) if wants_fp8 else ()
    return ("hardware", "TFLOP/s", "GiB", "fits", *fp8, "MFU", "time", "$/h", "cost"), rows


def _say_assumptions(stages: Sequence[StagePlan], devices: Sequence[Hardware], assumptions: Assumptions) -> None:
    say("")
    say("Micro: micro-steps of a rank, times rows, times tokens a row. Time: FLOPs / (bfloat16 peak x MFU x ranks), of")
    say("the training steps alone; the MFU is an assumption, --mfu sets another. Memory is an upper bound: a compiled")
    say("model keeps fewer activations.")
    if assumptions.price is None and any(device.price_per_hour for device in devices):
        say(f"Prices: {PRICE_SOURCE}, a device; --price sets another.")
    unknown = [stage.name for stage in stages if stage.flops is None]
    if unknown:
        say(f"Not counted, as only the run itself finds out: {', '.join(unknown)}.")


def _mfu(device: Hardware, assumptions: Assumptions) -> float:
    if assumptions.mfu is not None:
        return assumptions.mfu
    return CPU_MFU if device.name == CPU else GPU_MFU


def _scientific(number: float | None) -> str | None:
    return None if number is None else f"{number:.3g}"


def _long(seconds: float) -> str:
    return duration(seconds) if seconds < 72 * 3600 else f"{seconds / 86400:,.1f} days"
