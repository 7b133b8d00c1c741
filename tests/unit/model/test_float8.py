"""Float8 as far as a CPU goes: which maps, the numbers of torchao's emulation, off while evaluating, refusals."""

import sys
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat.config import GPTConfig
from nanochat.errors import InvalidConfig
from nanochat.model.float8 import float8_linears, hopper_obstacle, require_float8, use_float8
from nanochat.model.gpt import GPT
from nanochat.model.init import init_weights
from nanochat.model.names import load_tensors, named_parameters, named_tensors
from nanochat.optim.groups import LearningRates, param_groups
from nanochat.optim.optimizer import MuonAdamW
from nanochat.recipes.device import Device, compile_model

CUDA = torch.device("cuda", 0)
NEEDS_HOPPER = pytest.mark.skipif(
    not torch.cuda.is_available() or hopper_obstacle(CUDA) is not None,
    reason="needs an NVIDIA GPU of Hopper's generation or newer, and there is none",
)
E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2


def make(n_embd: int = 128, vocab_size: int = 250) -> GPT:
    config = GPTConfig(
        sequence_len=32, vocab_size=vocab_size, n_layer=2, n_head=2, n_kv_head=2, n_embd=n_embd, window_pattern="L"
    )
    model = GPT(config, torch.bfloat16)
    init_weights(model, torch.Generator().manual_seed(0))
    with torch.no_grad():  # those that begin at zero would hide what lies before them
        for name, parameter in named_parameters(model).items():
            if name.endswith(("attention_out", "mlp_down", "head")):
                parameter.normal_(std=0.05, generator=torch.Generator().manual_seed(1))
    return model


@pytest.fixture(scope="module")
def ids() -> Tensor:
    return torch.randint(0, 250, (2, 33), generator=torch.Generator().manual_seed(2))


def test_maps_of_two_dimensions_that_divide_by_16_and_are_128_or_more_are_chosen() -> None:
    matrices = ["attention.key", "attention.out", "attention.query", "attention.value", "mlp.down", "mlp.up"]
    expected = {f"layers.{layer}.{matrix}" for layer in (0, 1) for matrix in matrices}
    # Not the head, whose product is the loss's; the gates' 12 and 24 channels are too few.
    assert float8_linears(make()).keys() == expected
    assert not float8_linears(make(n_embd=112))  # below 128
    assert not float8_linears(make(n_embd=136))  # no multiple of 16


def rounded(x: Tensor, dtype: torch.dtype) -> Tensor:
    """To what float8 with one scale a tensor can hold: the largest becomes the dtype's largest."""
    scale = torch.finfo(dtype).max / x.float().abs().max().double()
    return ((x.double() * scale).float().to(dtype).double() / scale).float()


def test_products_are_those_of_rounded_factors_forward_and_backward() -> None:
    model = make()
    linear = model.blocks[0].mlp.up
    use_float8(model, 64, emulate=True)
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, 32, 128, generator=generator).bfloat16().requires_grad_()
    upstream = torch.randn(2, 32, 512, generator=generator).bfloat16()
    y = linear(x)
    y.backward(upstream)
    flat, gradient = x.detach().flatten(0, 1), upstream.flatten(0, 1)
    w8, x8, g8 = rounded(linear.weight.detach(), E4M3), rounded(flat, E4M3), rounded(gradient, E5M2)
    assert linear.weight.grad is not None and x.grad is not None and linear.weight.grad.dtype == torch.float32
    for found, expected in (
        (y.flatten(0, 1), x8 @ w8.T),
        (x.grad.flatten(0, 1), g8 @ w8),
        (linear.weight.grad, g8.T @ x8),
    ):
        # Results are bfloat16. Beside this the plain products differ by 3%.
        error = (found.float() - expected).norm() / expected.norm()
        assert error < 0.003
    plain = F.linear(x, linear.weight.bfloat16())
    assert (y - plain).norm() / plain.norm() > 0.02


def test_it_is_off_while_the_model_evaluates_and_on_again_afterwards(ids: Tensor) -> None:
    model, plain = make(), make()
    use_float8(model, 64, emulate=True)
    inputs, targets = ids[:, :-1], ids[:, 1:]
    narrow = model(inputs)
    assert narrow.shape == (2, 32, 250)
    assert not torch.equal(narrow, plain(inputs))
    model.eval()
    assert torch.equal(model(inputs), plain(inputs))
    assert torch.equal(model(inputs, targets, reduction="none"), plain(inputs, targets, reduction="none"))
    model.train()
    assert torch.equal(model(inputs), narrow)


def test_the_model_learns_and_its_weights_stay_its_own(ids: Tensor) -> None:
    model, plain = make(), make()
    before = list(named_parameters(model))
    use_float8(model, 64, emulate=True)
    assert model.num_parameters() == plain.num_parameters() and list(named_parameters(model)) == before
    assert sum(len(group.parameters) for group in param_groups(model)) == len(before)
    losses = []
    for trained in (model, plain):
        for _ in range(5):
            loss = trained(ids[:, :-1], ids[:, 1:])
            trained.zero_grad()
            loss.backward()
            with torch.no_grad():
                for parameter in trained.parameters():
                    parameter -= 0.02 * parameter.grad / parameter.grad.norm().clamp(min=1e-6)  # type: ignore[operator, union-attr]
        losses.append(float(trained(ids[:, :-1], ids[:, 1:]).detach()))
    first = float(make()(ids[:, :-1], ids[:, 1:]).detach())
    assert losses[0] == pytest.approx(losses[1], abs=0.1 * (first - losses[1])) and losses[1] < first - 0.05


@NEEDS_HOPPER
def test_hoppers_products_are_those_of_the_emulation(ids: Tensor) -> None:
    narrow, emulated = make().to(CUDA), make().to(CUDA)
    use_float8(narrow, 64)
    use_float8(emulated, 64, emulate=True)
    inputs, targets = ids[:, :-1].to(CUDA), ids[:, 1:].to(CUDA)
    assert (narrow(inputs) - emulated(inputs)).norm() < 0.01 * emulated(inputs).norm()
    for model in (narrow, emulated):
        model(inputs, targets).backward()
    for name, parameter in named_parameters(emulated).items():
        found, expected = named_parameters(narrow)[name].grad, parameter.grad
        assert found is not None and expected is not None and found.dtype == expected.dtype
        # Roundings of bfloat16 between the products, which float8 then makes larger.
        assert (found.float() - expected.float()).norm() <= 0.05 * expected.float().norm(), name


@NEEDS_HOPPER
@pytest.mark.filterwarnings("ignore")  # torch warns of what its compiler itself does
@pytest.mark.parametrize("is_compiled", [False, True])
def test_on_hopper_training_follows_bfloat16_and_evaluation_is_in_it(ids: Tensor, is_compiled: bool) -> None:
    """As a job trains: Muon in bfloat16, and the model compiled where it is."""
    inputs, targets = ids[:, :-1].to(CUDA), ids[:, 1:].to(CUDA)
    losses: dict[bool, list[float]] = {}
    for uses_float8 in (False, True):
        model = make().to(CUDA)
        optimizer = MuonAdamW(param_groups(model, LearningRates(batch_factor=0.1)), torch.bfloat16)
        if uses_float8:
            use_float8(model, 64)
        if is_compiled:
            torch._dynamo.reset()  # type: ignore[no-untyped-call]
            compile_model(model, True, Device(device=CUDA, dtype=torch.bfloat16, num_threads=1))
        losses[uses_float8] = []
        for _ in range(20):
            loss = model(inputs, targets)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses[uses_float8].append(float(loss.detach()))
    first, plain, narrow = losses[False][0], losses[False][-1], losses[True][-1]
    assert plain < 0.8 * first
    assert narrow == pytest.approx(plain, abs=0.1 * (first - plain))
    assert losses[True] != losses[False]
    twin = GPT(model.config, torch.bfloat16).to(CUDA)
    load_tensors(twin, named_tensors(model))
    assert not torch.equal(model.forward(inputs), twin(inputs))
    model.eval()
    assert torch.equal(model.forward(inputs), twin(inputs))


def test_a_model_too_narrow_and_tokens_that_do_not_divide_are_refused() -> None:
    with pytest.raises(InvalidConfig, match="no linear map of this model has two dimensions of 128 or more") as caught:
        use_float8(make(n_embd=112, vocab_size=60), 64)
    assert caught.value.param == "precision"
    with pytest.raises(InvalidConfig, match="the 60 tokens of a micro-batch do not divide by 16"):
        use_float8(make(), 60)


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.version, "hip", None)
    yield monkeypatch


def test_hopper_and_newer_with_torchao_have_it(hopper: pytest.MonkeyPatch) -> None:
    require_float8(CUDA)


def test_what_it_lacks_is_said(hopper: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidConfig, match="needs an NVIDIA GPU of Hopper's generation or newer, and this is cpu"):
        require_float8(torch.device("cpu"))
    with hopper.context() as inner:
        inner.setitem(sys.modules, "torchao.float8", None)
        with pytest.raises(InvalidConfig, match="needs the package torchao, which cannot be imported here"):
            require_float8(CUDA)
    hopper.setattr(torch.version, "hip", "7.1.25424")
    with pytest.raises(InvalidConfig, match="needs an NVIDIA GPU"):
        require_float8(CUDA)
    hopper.setattr(torch.version, "hip", None)
    hopper.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    with pytest.raises(InvalidConfig, match=r"this one is sm89\. Or use auto") as caught:
        require_float8(CUDA)
    assert caught.value.param == "precision"
