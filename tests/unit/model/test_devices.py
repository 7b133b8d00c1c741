"""Devices that are not here, by stand-ins: what torch says of AMD's GPUs, and what Apple's cannot do."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from nanochat.config import GPTConfig
from nanochat.errors import InvalidConfig
from nanochat.model import flash_attention
from nanochat.model.flash_attention import page_tokens
from nanochat.model.gpt import GPT
from nanochat.model.kv_cache import KVCache
from nanochat.model.precision import compute_dtype, float64_device, is_nvidia
from nanochat.model.ragged import RaggedStep
from nanochat_inference.loaded_model import resolve_device

CONFIG = GPTConfig(sequence_len=16, vocab_size=64, n_layer=1, n_head=2, n_kv_head=1, n_embd=32)


@pytest.mark.parametrize(
    ("device", "hip", "capability", "dtype", "is_nvidias"),
    [
        ("cuda:0", None, (9, 0), torch.bfloat16, True),
        ("cuda:0", None, (8, 0), torch.bfloat16, True),
        ("cuda:0", None, (7, 5), torch.float16, True),
        ("cuda:0", "7.1.25424", (9, 4), torch.bfloat16, False),
        ("cuda:0", "7.1.25424", (7, 0), torch.bfloat16, False),
        ("mps", None, None, torch.float32, False),
        ("cpu", None, None, torch.float32, False),
    ],
)
def test_dtypes_by_device(
    monkeypatch: pytest.MonkeyPatch, device: str, hip: str | None, capability: Any, dtype: torch.dtype, is_nvidias: bool
) -> None:
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert compute_dtype(device) == dtype
    assert is_nvidia(torch.device(device)) is is_nvidias
    assert compute_dtype(device, "fp32") == torch.float32


def test_flash_attn_reads_caches_in_pages_on_nvidias_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 4))
    monkeypatch.setattr(flash_attention, "flash_attn_with_kvcache", None)  # it is not installed
    assert page_tokens(cuda, torch.bfloat16, 64) is None
    monkeypatch.setattr(flash_attention, "flash_attn_with_kvcache", lambda *_: None)
    pages = [page_tokens(cuda, dtype, 256) for dtype in (torch.bfloat16, torch.float16)]
    assert all(page is not None and page % 256 == 0 for page in pages)
    assert page_tokens(cuda, torch.float32, 64) is None
    assert page_tokens(cuda, torch.bfloat16, 264) is None
    assert page_tokens(torch.device("cpu"), torch.bfloat16, 64) is None
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert page_tokens(cuda, torch.float16, 64) is None
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 4))
    monkeypatch.setattr(torch.version, "hip", "7.1.25424")
    assert page_tokens(cuda, torch.bfloat16, 64) is None


class NoFloat64(TorchFunctionMode):
    """Stands in for a device that has no float64, on `meta`, where tensors have shapes alone."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.dtype == torch.float64 and result.device.type == "meta":
            raise TypeError("the stand-in has no float64")
        return result


def test_a_model_is_made_on_a_device_without_float64() -> None:
    with torch.device("meta"), NoFloat64():
        with pytest.raises(TypeError):
            torch.ones(1, dtype=torch.float64)
        model = GPT(CONFIG)
    assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"meta"}
    assert torch.equal(GPT(CONFIG).cos[0], torch.ones(1, CONFIG.head_dim // 2))


def test_float64_is_computed_where_it_can_be() -> None:
    found = [float64_device(torch.device(name)).type for name in ("cpu", "cuda", "mps", "meta")]
    assert found == ["cpu", "cuda", "cpu", "meta"]


def test_a_step_copies_asynchronously_to_cuda_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere the source may be gone before it is read."""
    asked = []

    def to(self: Tensor, device: Any, non_blocking: bool = False) -> Tensor:
        asked.append((torch.device(device).type, non_blocking))
        return self

    cache, slots, num_new = KVCache(CONFIG, 2, 8), torch.tensor([0]), torch.tensor([2])
    monkeypatch.setattr(Tensor, "to", to)
    for name in ("cuda", "mps"):
        RaggedStep(cache, slots, num_new, 2, torch.device(name))
    assert {name for name, _ in asked} == {"cuda", "mps"}
    assert all(is_async == (name == "cuda") for name, is_async in asked)


@pytest.mark.parametrize(
    ("has_cuda", "has_mps", "device"), [(True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_a_replica_takes_the_device_that_is_there(
    monkeypatch: pytest.MonkeyPatch, has_cuda: bool, has_mps: bool, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: has_mps)
    assert resolve_device("auto").type == device


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is a GPU of Apple's")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="device 'mps' cannot be used here"):
        resolve_device("mps")
