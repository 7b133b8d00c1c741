"""Every way to multiply gives the product and the gradients of F.linear."""

import pytest
import torch
import torch.nn.functional as F

from nanochat.model import product
from nanochat.model.product import MIN_SIZE, Way, add_product, has_onednn, linear, zero_sum
from nanochat.native import training as native

WAYS: list[Way] = ["native", "onednn", "torch"]
needs_kernels = pytest.mark.skipif(not native.is_available(), reason="no kernels can be had for this CPU")


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Way:
    way: Way = request.param
    if way == "onednn" and not has_onednn():
        pytest.skip("torch without oneDNN")
    if way == "native" and not native.is_available():
        pytest.skip("no kernels can be had for this CPU")
    monkeypatch.setattr(product, "_fastest_way", lambda: way)
    return way


def _random(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(MIN_SIZE, 64), (2, 40, 64), (2, 1, 75, 64), (5, 64)])
@pytest.mark.parametrize("is_compiled", [False, True])
def test_it_multiplies_as_torch_does(way: Way, shape: tuple[int, ...], is_compiled: bool) -> None:
    torch.compiler.reset()
    x, weight = _random(*shape).requires_grad_(), _random(80, 64, seed=2).requires_grad_()
    multiply = torch.compile(linear, backend="aot_eager", dynamic=False) if is_compiled else linear
    found, expected = multiply(x, weight), F.linear(x, weight)
    torch.testing.assert_close(found, expected)
    upstream = _random(*expected.shape, seed=3)
    for one, other in zip(
        torch.autograd.grad(found, (x, weight), upstream),
        torch.autograd.grad(expected, (x, weight), upstream),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_sum_of_products_grows_by_each(way: Way) -> None:
    total, expected = zero_sum(96, 70, torch.device("cpu")), torch.zeros(96, 70)
    for seed in (1, 2):
        a, b = _random(80, 96, seed=seed).t(), _random(80, 70, seed=seed + 2).t()
        add_product(total, a, b)
        expected += a @ b.t()
    torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-4)


def test_only_large_float32_goes_another_way(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product, "multiply", None)
    wide, weight = _random(MIN_SIZE, 64).double(), _random(80, 64).double()
    assert torch.equal(linear(wide, weight), F.linear(wide, weight))
    few, narrow = _random(MIN_SIZE - 1, 64), _random(80, 64)
    assert torch.equal(linear(few, narrow), F.linear(few, narrow))


# Rows, columns and depths beside those of tiles, panels, blocks and parts.
SIZES = [(1, 1, 1), (7, 5, 3), (8, 48, 16), (65, 100, 2049), (3, 1000, 33), (513, 16, 7), (9, 1300, 5000)]


@needs_kernels
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("a_is_transposed", [False, True])
@pytest.mark.parametrize("b_is_transposed", [False, True])
def test_the_kernel_multiplies_whatever_the_size_and_the_way_round(
    size: tuple[int, int, int], a_is_transposed: bool, b_is_transposed: bool
) -> None:
    M, N, K = size
    a = _random(K, M).t() if a_is_transposed else _random(M, K)
    b = _random(K, N, seed=2).t() if b_is_transposed else _random(N, K, seed=2)
    expected = a.double() @ b.double().t()
    close = {"rtol": 0.0, "atol": 2e-6 * K + 1e-6}
    torch.testing.assert_close(native.multiply(a, b).double(), expected, **close)
    total = torch.full((M, N), 1.5)
    assert native.multiply(a, b, total) is total
    torch.testing.assert_close(total.double(), expected + 1.5, **close)


@needs_kernels
def test_matrices_with_room_between_their_numbers_are_copied_first() -> None:
    a, b = _random(70, 2 * 66)[:, ::2], _random(80, 200)[:, 7:73]
    torch.testing.assert_close(native.multiply(a, b), a @ b.t(), rtol=1e-4, atol=1e-4)


@needs_kernels
def test_the_kernel_gives_the_same_bits_with_any_number_of_threads() -> None:
    a, b = _random(3000, 200).t(), _random(3000, 100, seed=2).t()
    threads = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(native.multiply(a, b))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
