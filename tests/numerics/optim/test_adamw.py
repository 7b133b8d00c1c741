"""AdamW against torch's own."""

import pytest
import torch

from nanochat.optim.adamw import adamw_step


@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_steps_equal_those_of_torch(weight_decay: float) -> None:
    generator = torch.Generator().manual_seed(0)
    ours = torch.randn(50, 7, generator=generator)
    theirs = torch.nn.Parameter(ours.clone())
    rates = {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-10, "weight_decay": weight_decay}
    optimizer = torch.optim.AdamW([theirs], **rates)
    first, second = torch.zeros_like(ours), torch.zeros_like(ours)
    for step in range(1, 6):
        theirs.grad = torch.randn(50, 7, generator=generator)
        adamw_step(ours, theirs.grad, first, second, step=step, **rates)
        optimizer.step()
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-6, atol=1e-7)


def test_narrow_weights_are_moved_in_float32_and_rounded_once() -> None:
    generator = torch.Generator().manual_seed(0)
    narrow = torch.randn(50, 7, generator=generator).bfloat16()
    wide, grad = narrow.float(), torch.randn(50, 7, generator=generator).bfloat16()
    rates = {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-10, "weight_decay": 0.1}
    moments = torch.zeros(4, 50, 7).unbind()
    adamw_step(narrow, grad, moments[0], moments[1], step=1, **rates)
    adamw_step(wide, grad.float(), moments[2], moments[3], step=1, **rates)
    assert torch.equal(narrow, wide.bfloat16())
