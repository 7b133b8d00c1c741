"""Every backend of attention against a masked softmax written out, forward and backward, and which one is chosen."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from nanochat.model import attention, flash_attention
from nanochat.model.attention import (
    BAND,
    Backend,
    cached_attention,
    causal_attention,
    choose_backend,
    visible_keys,
)
from nanochat.native import training as native
from tests.gpus import NEEDS_GPU

SCALE = 0.3
CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda", 0), torch.device("mps")


def written_out(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    group = q.size(2) // k.size(2)
    k, v = k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)
    distance = torch.arange(q.size(1), device=q.device)[:, None] - torch.arange(q.size(1), device=q.device)
    scores = torch.einsum("bthd,bshd->bhts", q, k) * SCALE
    scores = scores.masked_fill((distance < 0) | (distance > window), float("-inf"))
    return torch.einsum("bhts,bshd->bthd", scores.softmax(-1), v)


def tensors(length: int, kv_heads: int, *, device: torch.device = CPU, head_dim: int = 16) -> tuple[Tensor, ...]:
    """q, k, v and a gradient of the output."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, length, heads, head_dim) for heads in (4, kv_heads, kv_heads, 4)]
    return tuple(torch.randn(shape, generator=generator).to(device) for shape in shapes)


def gradients(attend: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, upstream: Tensor) -> list[Tensor]:
    """The output, and the gradients of q, k and v."""
    inputs = [tensor.detach().clone().requires_grad_() for tensor in (q, k, v)]
    out = attend(*inputs)
    return [out.detach(), *torch.autograd.grad(out, inputs, upstream)]


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize(
    ("length", "window"),
    [(5, 2), (5, 4), (5, 99), (BAND, 7), (3 * BAND + 1, 1), (3 * BAND - 1, 128), (300, 298), (300, 299)],
)
@pytest.mark.parametrize("backend", [None, "native", "sdpa", "banded"])
def test_rows_from_the_start_see_their_window(backend: Backend | None, length: int, window: int, kv_heads: int) -> None:
    if backend == "native" and not native.is_available():
        pytest.skip("no kernels can be had for this CPU")
    q, k, v, upstream = tensors(length, kv_heads)
    found = gradients(lambda *x: causal_attention(*x, window, SCALE, backend), q, k, v, upstream)
    expected = gradients(lambda *x: written_out(*x, window), q, k, v, upstream)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-5)


@pytest.mark.skipif(not native.is_available(), reason="no kernels can be had for this CPU")
@pytest.mark.parametrize("head_dim", [1, 8, 24, 64, 80, 128])
@pytest.mark.parametrize(("length", "window"), [(1, 0), (47, 0), (49, 49), (130, 33)])
def test_the_cpus_kernels_take_heads_of_any_width(length: int, window: int, head_dim: int) -> None:
    """Laid out head by head instead of token by token, too: then they are copied."""
    q, k, v, upstream = (x.double() for x in tensors(length, 2, head_dim=head_dim))
    expected = gradients(lambda *x: written_out(*x, window), q, k, v, upstream)
    apart = [x.float().transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v, upstream)]
    found = gradients(lambda *x: native.causal_attention(*x, window, SCALE), *apart)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=4e-5)


@pytest.mark.skipif(not native.is_available(), reason="no kernels can be had for this CPU")
@pytest.mark.parametrize("num_threads", [1, 3])
def test_the_cpus_kernels_give_the_same_with_any_number_of_threads(num_threads: int) -> None:
    q, k, v, upstream = tensors(200, 2, head_dim=32)
    expected = gradients(lambda *x: native.causal_attention(*x, 50, SCALE), q, k, v, upstream)
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        found = gradients(lambda *x: native.causal_attention(*x, 50, SCALE), q, k, v, upstream)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize(("length", "window"), [(5, 2), (300, 150), (300, 300)])
def test_flex_attention_sees_the_same(length: int, window: int, kv_heads: int) -> None:
    """Forward alone: PyTorch has no backward of it on a CPU."""
    q, k, v, _ = tensors(length, kv_heads)
    found = causal_attention(q, k, v, window, SCALE, "flex")
    torch.testing.assert_close(found, written_out(q, k, v, window), rtol=0, atol=1e-5)


@NEEDS_GPU
@pytest.mark.filterwarnings("ignore")  # torch warns of what its compiler itself does
@pytest.mark.parametrize("backend", ["flash2", "flash3", "flash4", "sdpa", "flex"])
@pytest.mark.parametrize(("kv_heads", "window"), [(4, 128), (2, 128), (4, 512), (2, 512)])
def test_backends_of_a_gpu_see_the_same(backend: Backend, kv_heads: int, window: int) -> None:
    if backend.startswith("flash"):
        version = int(backend[-1])
        major = torch.cuda.get_device_capability()[0]
        if version not in flash_attention._VERSIONS_BY_SM.get(major, (4, 2)):
            pytest.skip(f"flash-attn {version} is not for this GPU")
        if flash_attention._function(version) is None:
            pytest.skip(f"flash-attn {version} is not installed")
    q, k, v, upstream = tensors(512, kv_heads, device=CUDA, head_dim=64)

    def attend(*inputs: Tensor) -> Tensor:
        return causal_attention(*(x.bfloat16() for x in inputs), window, SCALE, backend).float()

    attend_at_once = torch.compile(attend) if backend == "flex" else attend
    found = gradients(attend_at_once, q, k, v, upstream)
    expected = gradients(lambda *x: written_out(*x, window), q, k, v, upstream)
    for one, other in zip(found, expected, strict=True):
        # bfloat16 has 8 bits; gradients add up what hundreds of queries give.
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.05 * float(other.abs().max()))


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_cached_queries_see_what_their_mask_allows(kv_heads: int) -> None:
    q, k, v, _ = tensors(20, kv_heads)
    positions = torch.arange(17, 20).expand(2, 3)
    mask = torch.zeros(2, 3, 20).masked_fill_(~visible_keys(positions, 20, 6), float("-inf"))
    found = cached_attention(q[:, 17:], k, v, mask, SCALE)
    torch.testing.assert_close(found, written_out(q, k, v, 6)[:, 17:], rtol=0, atol=1e-5)


def test_a_query_sees_itself_and_a_window_of_keys_to_its_left() -> None:
    seen = visible_keys(torch.tensor([[0, 3, 5]]), 4, window=2, first_key=2)
    assert seen.int().tolist() == [[[0, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 1]]]


def flash_2(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
) -> Tensor:
    """Stands in for flash-attn 2.8's, as those below do for 3's and 4.0's: takes what they take, and no more."""
    assert dropout_p == 0.0 and softmax_scale == SCALE and causal
    (B, T, H, D), left, right = q.shape, *window_size
    assert k.shape == v.shape == (B, T, k.size(2), D) and H % k.size(2) == 0
    assert (left, right) == (-1, -1) or (left >= 0 and right == 0)
    return written_out(q, k, v, T if left < 0 else left)


def flash_3(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    softmax_scale: float | None = None,
    causal: bool = False,
    qv: None = None,
    q_descale: None = None,
    k_descale: None = None,
    v_descale: None = None,
    window_size: tuple[int, int] = (-1, -1),
) -> Tensor:
    assert qv is q_descale is k_descale is v_descale is None
    return flash_2(q, k, v, 0.0, softmax_scale, causal, window_size)


def flash_4(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    qv: None = None,
    gather_kv_indices: None = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int | None, int | None] = (None, None),
) -> tuple[Tensor, None]:
    """It gives the sums of exponentials as well, or None for them."""
    assert qv is gather_kv_indices is None and window_size[0] is not None and window_size[1] is not None
    return flash_2(q, k, v, 0.0, softmax_scale, causal, (window_size[0], window_size[1])), None


STAND_INS: dict[str, Any] = {"flash_attn": flash_2, "flash_attn_interface": flash_3, "flash_attn.cute": flash_4}


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets these packages and no others be there, and a GPU of this capability."""

    def installed(*names: str, capability: tuple[int, int] = (9, 0), hip: str | None = None) -> None:
        def import_module(name: str) -> Any:
            if name not in names:
                raise ImportError(name)
            return SimpleNamespace(flash_attn_func=STAND_INS[name])

        flash_attention._function.cache_clear()
        monkeypatch.setattr(flash_attention.importlib, "import_module", import_module)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        monkeypatch.setattr(torch.version, "hip", hip)

    yield installed
    flash_attention._function.cache_clear()


@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("window", [3, 18, 19, 40])
@pytest.mark.parametrize("backend", ["flash2", "flash3", "flash4"])
def test_flash_attn_is_called_as_its_versions_want_it(
    install: Any, backend: Backend, window: int, kv_heads: int
) -> None:
    install(*STAND_INS)
    q, k, v, upstream = tensors(20, kv_heads)
    found = gradients(lambda *x: causal_attention(*x, window, SCALE, backend), q, k, v, upstream)
    expected = gradients(lambda *x: written_out(*x, window), q, k, v, upstream)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


ALL = tuple(STAND_INS)


@pytest.mark.parametrize(
    ("packages", "capability", "head_dim", "expected"),
    [
        (ALL, (9, 0), 128, "flash3"),
        (("flash_attn", "flash_attn.cute"), (9, 0), 128, "flash4"),
        (("flash_attn", "flash_attn.cute"), (9, 0), 256, "flash2"),
        (ALL, (10, 0), 128, "flash4"),
        (ALL, (12, 0), 64, "flash4"),
        (("flash_attn", "flash_attn_interface"), (10, 0), 64, "flash2"),
        (ALL, (8, 6), 128, "flash2"),
        (("flash_attn_interface", "flash_attn.cute"), (8, 0), 128, "flex"),
        ((), (9, 0), 128, "flex"),
        (ALL, (9, 0), 264, "flex"),
        (ALL, (9, 0), 100, "flex"),
        (ALL, (7, 5), 128, "sdpa"),
    ],
)
def test_the_newest_flash_attn_that_suits_is_chosen(
    install: Any, packages: tuple[str, ...], capability: tuple[int, int], head_dim: int, expected: str
) -> None:
    install(*packages, capability=capability)
    assert choose_backend(CUDA, torch.bfloat16, head_dim, True, True) == expected


def test_without_flash_attn_a_backend_is_chosen_by_what_windows_cost_in_it(
    install: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(*ALL)
    assert choose_backend(CUDA, torch.float32, 64, True, True) == "flex"  # flash-attn is for half precision
    assert choose_backend(CUDA, torch.float32, 64, True, False) == "sdpa"  # it would hold all scores at once
    assert choose_backend(CUDA, torch.float32, 64, False, True) == "sdpa"
    assert choose_backend(CPU, torch.bfloat16, 64, True, True) == "banded"
    assert choose_backend(CPU, torch.bfloat16, 64, False, True) == "sdpa"
    for has_kernels, expected in ((True, {"native"}), (False, {"banded", "sdpa"})):
        monkeypatch.setattr(native, "is_available", lambda found=has_kernels: found)
        assert {choose_backend(CPU, torch.float32, 64, windowed, True) for windowed in (True, False)} == expected
    assert choose_backend(MPS, torch.float32, 64, True, False) == "sdpa"
    install(*ALL, capability=(9, 4), hip="7.1.25424")
    assert choose_backend(CUDA, torch.bfloat16, 64, True, True) == "flex"  # AMD's


def test_a_compiled_model_has_no_break_at_the_choice() -> None:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return causal_attention(q, k, v, 7, SCALE)

    q, k, v, _ = tensors(20, 4)
    compiled = torch.compile(attend, fullgraph=True, backend="eager", dynamic=False)
    torch.testing.assert_close(compiled(q, k, v), written_out(q, k, v, 7), rtol=0, atol=1e-5)


def test_pieces_of_a_row_are_not_given_keys_that_none_of_their_queries_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    """What keeps a window from costing more than none."""
    cells = 0
    attend = torch.nn.functional.scaled_dot_product_attention

    def counting(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        nonlocal cells
        cells += q.size(2) * k.size(2)
        return attend(q, k, v, **options)

    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", counting)
    for length, window in ((512, 128), (2048, 512)):
        cells = 0
        q = torch.zeros(1, length, 1, 8)
        causal_attention(q, q, q, window, SCALE, "banded")
        assert 0 < cells < length * (length + 1) / 2  # of full causal attention
