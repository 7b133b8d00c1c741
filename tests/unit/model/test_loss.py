"""The loss in chunks is cross entropy over whole logits, gradients included."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat.model import loss as loss_module
from nanochat.model.loss import HeadLoss, RowLosses, in_blocks, row_losses, softcap
from nanochat.native import training as native

CAP = 15.0
B, T, C, V = 3, 7, 16, 50


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four rows, so that 21 rows are five chunks and a rest."""
    monkeypatch.setattr(loss_module, "LOGITS_AT_ONCE", 4 * V)


def inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """x, weight, and targets of which every third does not count. Logits reach far into the softcap."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(B, T, C, generator=generator).to(dtype).requires_grad_()
    weight = (4 * torch.randn(V, C, generator=generator)).to(dtype).requires_grad_()
    targets = torch.randint(V, (B, T), generator=generator)
    targets.view(-1)[::3] = -1
    return x, weight, targets


def whole(x: Tensor, weight: Tensor, targets: Tensor, reduction: str) -> Tensor:
    """In float64, as it is written down."""
    logits = CAP * torch.tanh(x.double() @ weight.double().T / CAP)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction=reduction)


in_threes = in_blocks(row_losses, 3 * V)


@pytest.fixture(params=[row_losses, in_threes, native.row_losses], ids=["written out", "in blocks", "native"])
def rows(request: pytest.FixtureRequest) -> RowLosses:
    if request.param is native.row_losses and not native.is_available():
        pytest.skip("no kernels can be had for this CPU")
    chosen: RowLosses = request.param
    return chosen


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_losses_and_gradients_are_those_of_whole_logits(reduction: str, rows: RowLosses) -> None:
    x, weight, targets = inputs()
    head_loss = HeadLoss(CAP)
    head_loss.rows = rows
    found = head_loss(x, weight, targets, reduction)
    expected = whole(x, weight, targets, reduction).view_as(found)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    # Each row with a weight of its own, as a policy gradient has it.
    row_weights = torch.linspace(-1, 2, B * T).view(B, T) if reduction == "none" else torch.tensor(3.0)
    grads = torch.autograd.grad((found * row_weights).sum(), (x, weight))
    expected_grads = torch.autograd.grad((expected * row_weights).sum(), (x, weight))
    for found_grad, expected_grad in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(found_grad, expected_grad, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_narrow_model_has_its_loss_and_its_heads_gradient_in_float32(dtype: torch.dtype) -> None:
    (x, _, targets), (_, weight, _) = inputs(dtype), inputs()
    found = HeadLoss(CAP)(x, weight, targets)
    assert found.dtype == torch.float32
    expected = whole(x, weight, targets, "mean")
    torch.testing.assert_close(found.double(), expected, rtol=0.02, atol=0.02)
    found_grads = torch.autograd.grad(found, (x, weight))
    expected_grads = torch.autograd.grad(expected, (x, weight))
    assert [grad.dtype for grad in found_grads] == [dtype, torch.float32]
    for found_grad, expected_grad in zip(found_grads, expected_grads, strict=True):
        assert (found_grad - expected_grad).norm() < 0.02 * expected_grad.norm()


def test_a_sum_beyond_float16_is_a_gradient_all_the_same() -> None:
    """As of a scaled loss, which is lowered until its gradients fit: the head's has to be there to be lowered."""
    x = torch.full((1, 5000, 8), 30.0, dtype=torch.float16)
    weight = torch.zeros(V, 8, requires_grad=True)
    HeadLoss(CAP)(x, weight, torch.zeros(1, 5000, dtype=torch.int64), "sum").backward()
    assert weight.grad is not None
    assert weight.grad[0].mean().item() == pytest.approx(-30.0 * 5000 * (1 - 1 / V), rel=0.01)


def test_no_more_than_a_chunk_of_logits_exists() -> None:
    shapes = []

    def rows(logits: Tensor, targets: Tensor, cap: float) -> tuple[Tensor, Tensor, Tensor]:
        shapes.append(logits.shape)
        return row_losses(logits, targets, cap)

    head_loss = HeadLoss(CAP)
    head_loss.rows = rows
    head_loss(*inputs()).backward()
    assert shapes == [(4, V)] * 5 + [(1, V)]


def test_a_chunk_goes_through_the_formula_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)  # of more, each has a row
    shapes = []

    def rows(logits: Tensor, targets: Tensor, cap: float) -> tuple[Tensor, Tensor, Tensor]:
        shapes.append(logits.shape)
        return row_losses(logits, targets, cap)

    logits, targets = torch.randn(8, V), torch.arange(8)
    expected = row_losses(logits.clone(), targets, CAP)
    found = in_blocks(rows, 3 * V)(logits, targets, CAP)
    assert shapes == [(3, V), (3, V), (2, V)]
    assert all(map(torch.equal, found, expected))


def test_compiled_blocks_leave_their_gradients_where_the_logits_were() -> None:
    compiled = torch.compile(row_losses, backend="aot_eager", dynamic=False)
    logits, targets = torch.randn(8, V), torch.arange(8)
    expected = row_losses(logits.clone(), targets, CAP)
    found = in_blocks(compiled, 3 * V)(logits, targets, CAP)
    assert found[1] is logits
    for part, expected_part in zip(found, expected, strict=True):
        torch.testing.assert_close(part, expected_part)


def test_blocks_of_a_function_that_does_not_overwrite_are_put_in_place() -> None:
    logits, targets = torch.randn(5, V), torch.arange(5)
    expected = row_losses(logits.clone(), targets, CAP)
    found = in_blocks(lambda part, *others: row_losses(part.clone(), *others), 2 * V)(logits, targets, CAP)
    assert all(map(torch.equal, found, expected))


def test_where_nothing_counts_the_mean_is_zero_and_has_no_gradient() -> None:
    x, weight, targets = inputs()
    found = HeadLoss(CAP)(x, weight, torch.full_like(targets, -1))
    found.backward()
    assert found == 0.0
    assert x.grad is not None and weight.grad is not None
    assert not x.grad.any() and not weight.grad.any()


def test_logits_beyond_all_bounds_have_finite_losses(rows: RowLosses) -> None:
    logits = torch.tensor([[1e30, -1e30, 0.0], [3e38, 3e38, -3e38]])
    expected = F.cross_entropy(softcap(logits, CAP), torch.tensor([1, 0]), reduction="none")
    losses, grad, factors = rows(logits, torch.tensor([1, 0]), CAP)
    torch.testing.assert_close(losses, expected)
    assert (grad * factors[:, None]).isfinite().all()


def test_what_is_no_number_stays_none(rows: RowLosses) -> None:
    losses, *_ = rows(torch.tensor([[float("nan"), 0.0]]), torch.tensor([1]), CAP)
    assert losses.isnan().all()


def test_float32_logits_are_overwritten_and_narrower_ones_are_not(rows: RowLosses) -> None:
    logits, targets = torch.randn(3, V), torch.tensor([1, -1, 4])
    assert rows(logits, targets, CAP)[1].data_ptr() == logits.data_ptr()
    narrow = torch.randn(3, V).bfloat16()
    before = narrow.clone()
    assert row_losses(narrow, targets, CAP)[1].dtype == torch.float32
    assert torch.equal(narrow, before)


@pytest.mark.skipif(not native.is_available(), reason="no kernels can be had for this CPU")
@pytest.mark.parametrize("target", [-2, V, 2**40])
def test_a_target_that_is_no_column_is_refused_and_nothing_is_written(target: int) -> None:
    logits = torch.randn(2, V)
    before = logits.clone()
    with pytest.raises(IndexError):
        native.row_losses(logits, torch.tensor([0, target]), CAP)
    assert torch.equal(logits, before)


@pytest.mark.parametrize("vocab_size", [1, 15, 16, 63, 64, 130])
def test_vocabularies_of_any_size_have_the_kernels_losses(rows: RowLosses, vocab_size: int) -> None:
    """Beyond the last whole vector of sixteen, too."""
    logits, targets = 20 * torch.randn(4, vocab_size), torch.tensor([0, vocab_size - 1, -1, vocab_size // 2])
    wide = logits.double().requires_grad_()
    expected = F.cross_entropy(CAP * torch.tanh(wide / CAP), targets, ignore_index=-1, reduction="none")
    (expected_grad,) = torch.autograd.grad(expected.sum(), wide)
    losses, grad, factors = rows(logits, targets, CAP)
    torch.testing.assert_close(losses.double(), expected.detach(), rtol=1e-5, atol=2e-5)
    torch.testing.assert_close((grad * factors[:, None]).double(), expected_grad, rtol=1e-4, atol=1e-6)
