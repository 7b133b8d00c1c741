"""The scale of float16's loss, beside torch's own scaler."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nanochat.model.names import named_parameters
from nanochat.recipes import loss_scale
from nanochat.recipes.loss_scale import LossScale
from nanochat.recipes.next_token import accumulate
from nanochat.recipes.training_loop import Training, train
from tests.gpus import NEEDS_GPU

from .tiny_training import Batches, weights


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


DEVICES = [
    "cpu",
    pytest.param("cuda", marks=NEEDS_GPU),
]


@pytest.mark.parametrize("device", DEVICES)
def test_gradients_in_float16_are_those_in_float32_with_it_and_are_lost_where_it_is_too_small(
    make: Callable[..., Training], device: str
) -> None:
    def gradients(dtype: torch.dtype, scale: LossScale | None) -> dict[str, Tensor]:
        model = make(device=device, dtype=dtype).model
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():  # weights that begin at zero would keep gradients from what lies before them
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator).to(device))
        accumulate(model, [next(Batches(4))], scale=1.0 if scale is None else scale.value)
        found = {name: parameter.grad for name, parameter in named_parameters(model).items()}
        assert all(grad is not None and grad.dtype == torch.float32 for grad in found.values())
        if scale is not None:
            scale.unscale([grad for grad in found.values() if grad is not None])
        # But for scalars, some of which the norm behind them leaves without a gradient.
        return {name: grad.cpu() for name, grad in found.items() if grad is not None and grad.ndim == 2}

    exact = gradients(torch.float32, None)

    def error(scale: LossScale) -> float:
        narrow = gradients(torch.float16, scale)
        return max(float((narrow[name] - grad).norm() / grad.norm()) for name, grad in exact.items())

    assert error(LossScale()) < 0.01  # float16 has 11 bits
    assert error(LossScale(value=2.0**-10)) > 0.1


@pytest.mark.parametrize("device", DEVICES)
def test_a_run_whose_scale_overflows_leaves_out_steps_until_it_does_not(
    make: Callable[..., Training], device: str
) -> None:
    training = make(num_steps=12, device=device, dtype=torch.float16, loss_scale=LossScale(value=2.0**24))
    before = weights(training)
    train(training)
    num_skipped = training.position.num_skipped
    assert 1 <= num_skipped < 10
    assert training.loss_scale is not None and training.loss_scale.value == 2.0 ** (24 - num_skipped)
    after = weights(training)
    assert all(bool(tensor.isfinite().all()) for tensor in after.values())
    assert not torch.equal(before["layer.0.query"], after["layer.0.query"])
