"""Whole runs in each precision, and runs whose memory gives out."""

from functools import partial
from typing import Any

import pytest
import torch

from nanochat.model.gpt import GPT
from nanochat.native import training as native
from nanochat.protocol.progress import Metric, Setup
from nanochat.recipes import device, loss_scale, pretrain
from nanochat.recipes.loss_scale import LossScale

from .conftest import Ran, Workshop
from .test_resume import StopAfter, assert_equal_checkpoints

WIDE = {"aspect_ratio": 64, "head_dim": 64, "num_iterations": 6}  # two layers of 128 channels


def newest(ran: Ran, name: str) -> float:
    return [line.values[name] for line in ran.lines if isinstance(line, Metric) and name in line.values][-1]


def test_every_precision_learns_alike(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Float8 as its emulation has it."""
    monkeypatch.setattr(device, "require_float8", lambda device: None)
    monkeypatch.setattr(pretrain, "use_float8", partial(pretrain.use_float8, emulate=True))
    ran = {
        precision: workshop.run(workshop.pretrain(f"in-{precision}", precision=precision, **WIDE))
        for precision in ("fp32", "bf16", "fp16", "fp8")
    }
    bpb = {precision: one.result.values["val_bpb"] for precision, one in ran.items()}
    for precision in ("bf16", "fp16", "fp8"):
        assert bpb[precision] == pytest.approx(bpb["fp32"], rel=0.02)
    assert len(set(bpb.values())) == 4
    setups = {precision: next(line for line in one.lines if isinstance(line, Setup)) for precision, one in ran.items()}
    assert [setup.precision for setup in setups.values()] == list(ran)
    of_floats = "native" if native.is_available() else "sdpa"
    assert [setup.attention for setup in setups.values()] == [of_floats, "sdpa", "sdpa", "sdpa"]
    assert newest(ran["fp16"], "loss_scale") == 2**16 and newest(ran["fp16"], "num_skipped_steps") == 0
    state = {precision: workshop.state(str(one.result.output)) for precision, one in ran.items()}
    assert state["fp16"]["loss_scale"] == {"value": 2.0**16, "num_good_steps": 6}
    assert state["bf16"]["loss_scale"] is state["fp8"]["loss_scale"] is None


def test_a_loss_scale_too_large_is_halved_until_gradients_are_finite(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LossScale, "of", lambda dtype: LossScale(value=2.0**22))
    ran = workshop.run(workshop.pretrain("overflowing", precision="fp16", num_iterations=12))
    num_skipped = newest(ran, "num_skipped_steps")
    assert 1 <= num_skipped < 10
    assert newest(ran, "loss_scale") == 2.0 ** (22 - num_skipped)
    assert ran.result.values["train_loss"] < 6


def test_a_run_in_float16_resumes_with_its_scale(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = {"num_iterations": 8, "precision": "fp16"}
    constant = workshop.run(workshop.pretrain("fp16-constant", **steps)).result
    monkeypatch.setattr(loss_scale, "GROWTH_INTERVAL", 3)
    ran = workshop.run(workshop.pretrain("fp16-straight", **steps)).result
    # Steps do not see the scale; that it is a power of two leaves but the smallest gradients to round otherwise.
    assert ran.values["val_bpb"] == pytest.approx(constant.values["val_bpb"], rel=1e-4)
    straight = ran.output
    assert workshop.run(workshop.pretrain("fp16-stopped", **steps), StopAfter(4)).exit_code == 75
    resumed = workshop.run(workshop.pretrain("fp16-stopped", attempt=2, **steps)).result.output
    folder = workshop.home / "checkpoints"
    assert_equal_checkpoints(folder / str(straight), folder / str(resumed))
    scales = [workshop.state(str(output))["loss_scale"] for output in (straight, resumed)]
    assert scales[0] == scales[1] == {"value": 2.0**18, "num_good_steps": 2}


@pytest.mark.parametrize("kind", ["pretrain", "sft"])
def test_memory_that_runs_out_is_answered_with_what_to_try(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def forward(*args: Any, **options: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(GPT, "forward", forward)
    failure = workshop.run(getattr(workshop, kind)(f"{kind}-too-large")).failure
    assert failure.code == "out_of_memory"
    assert "Try device_batch_size 2 with total_batch_size 512" in failure.message
