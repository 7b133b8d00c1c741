"""The scale of float16's loss, beside torch's own scaler."""

import pytest
import torch

from nanochat.recipes import loss_scale
from nanochat.recipes.loss_scale import LossScale


def test_it_goes_as_torchs_scaler_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_scale, "GROWTH_INTERVAL", 3)
    ours, theirs = LossScale(), torch.amp.GradScaler("cpu", growth_interval=3)
    weight = torch.nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    theirs.scale(torch.ones(()))  # it makes its state at the first use
    for is_finite in (True, True, True, False, True, True, False, False, True, True, True, True, True, True):
        gradient = torch.full((4,), 3.0 if is_finite else float("inf")) * ours.value
        weight.grad = gradient.clone()
        theirs.unscale_(optimizer)
        ours.unscale([gradient])
        assert torch.equal(gradient, weight.grad)
        theirs.step(optimizer)
        theirs.update()
        ours.update(is_finite)
        assert ours.value == theirs.get_scale()
        assert ours.num_good_steps == theirs.state_dict()["_growth_tracker"]


def test_its_constants_are_torchs() -> None:
    theirs = torch.amp.GradScaler("cpu")
    assert (LossScale().value, loss_scale.GROWTH_INTERVAL) == (theirs.get_scale(), theirs.get_growth_interval())
    assert (theirs.get_growth_factor(), theirs.get_backoff_factor()) == (2.0, 0.5)


def test_float16_alone_has_one() -> None:
    assert LossScale.of(torch.float16) == LossScale()
    assert LossScale.of(torch.bfloat16) is LossScale.of(torch.float32) is None
