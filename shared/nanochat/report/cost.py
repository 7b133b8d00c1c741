"""What a run has cost, where its hardware has a price, and what its FLOPs would cost on hardware that has.

The first counts the time that its jobs took, from first word to last; the second the training steps alone, at an
assumed share of the peak (planning/cost.py): both are estimates, and the page says which is which.
"""

from dataclasses import dataclass

from nanochat.hardware import HARDWARE, PRICE_SOURCE, Hardware, lookup
from nanochat.numbers import dollars, duration
from nanochat.planning.cost import GPU_MFU, estimate, rent
from nanochat.report.document import Block, Table, Text
from nanochat.report.run import Run, Stage
from nanochat.sizes import flops_per_token

_HEADLINE = "H100"


@dataclass(frozen=True, kw_only=True)
class Effort:
    """`flops` of training steps, `seconds` of all jobs; `device` where the table knows it, `num_devices` of the most
    ranks."""

    flops: float
    seconds: float
    device: Hardware | None
    num_devices: int

    @property
    def rent(self) -> float | None:
        return rent(self.seconds, self.num_devices, self.device.price_per_hour) if self.device else None

    def headline(self) -> tuple[str, str] | None:
        """One number and what it is; None before a step was trained."""
        if self.rent is not None and self.device is not None:
            return f"rent, {self.num_devices} x {self.device.name}", dollars(self.rent)
        hardware = next(entry for entry in HARDWARE if entry.name == _HEADLINE)
        cost = estimate(self.flops, hardware).dollars
        return (f"estimate, on one {_HEADLINE}", dollars(cost)) if self.flops and cost is not None else None


def effort_of(run: Run) -> Effort:
    environments = [stage.environment for stage in run.stages if stage.environment is not None]
    devices = [lookup(environment.device_name) for environment in environments]
    return Effort(
        flops=sum(stage_flops(stage) for stage in run.stages),
        seconds=sum(job.seconds for job in run.jobs),
        device=devices[0] if devices and len(set(devices)) == 1 else None,
        num_devices=max((environment.num_ranks for environment in environments), default=1),
    )


def stage_flops(stage: Stage) -> float:
    """Of its training steps; 0 where neither its jobs nor its checkpoint tell."""
    a_token = stage.setup.flops_per_token if stage.setup else None
    if a_token is None and stage.checkpoint is not None:
        a_token = flops_per_token(stage.checkpoint.config)
    return float(a_token or 0) * stage.tokens


def cost_blocks(effort: Effort) -> list[Block]:
    blocks: list[Block] = []
    if effort.rent is not None and effort.device is not None:
        blocks.append(
            Text(
                text=f"Its jobs took {duration(effort.seconds)} on {effort.num_devices} x {effort.device.name}: at "
                f"${effort.device.price_per_hour:.2f} a device and hour that is {dollars(effort.rent)}, time between "
                "jobs not counted."
            )
        )
    if effort.flops:
        blocks += [
            Text(
                text=f"An estimate: what the {effort.flops:.3g} FLOPs of its training steps would take on one device "
                f"of each kind, at {GPU_MFU:.0%} of its bfloat16 peak. Evaluation comes on top."
            ),
            Table(headings=("hardware", "TFLOP/s", "time", "$/hour", "cost"), rows=_rows(effort.flops)),
            Text(text=f"Prices: {PRICE_SOURCE}."),
        ]
    return blocks


def _rows(flops: float) -> list[list[str]]:
    rows = []
    for device in HARDWARE:
        cost = estimate(flops, device)
        if cost.dollars is not None and device.price_per_hour is not None:
            time = duration(cost.seconds) if cost.seconds >= 1 else "< 1s"
            peak = f"{device.peak_flops / 1e12:,.4g}"
            rows.append([device.name, peak, time, f"{device.price_per_hour:.2f}", dollars(cost.dollars)])
    return rows
