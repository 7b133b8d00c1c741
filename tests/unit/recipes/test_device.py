"""Threads, precision, compiling and ranks: what is chosen and what is refused."""

import pytest
import torch

from nanochat.config import GPTConfig
from nanochat.cores import usable_cores
from nanochat.errors import InvalidConfig
from nanochat.model.float8 import use_float8
from nanochat.model.gpt import GPT
from nanochat.recipes import device as device_module
from nanochat.recipes.device import Device, DeviceSettings, choose_device, compile_model, describe_setup
from nanochat.recipes.distributed import Ranks, is_under_torchrun, joined, read_ranks

ON_CPU = DeviceSettings(device="cpu", num_threads=torch.get_num_threads())
CPU = Device(device=torch.device("cpu"), dtype=torch.float32, num_threads=1)


def test_threads_are_those_of_the_setting_else_the_usable_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        assert choose_device(settings=DeviceSettings(device="cpu", num_threads=1)).num_threads == 1
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        assert DeviceSettings().num_threads == 1
        monkeypatch.setenv("OMP_NUM_THREADS", "0")
        assert choose_device(settings=DeviceSettings(device="cpu")).num_threads == usable_cores() >= 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said_before_anything_is_loaded() -> None:
    with pytest.raises(InvalidConfig, match="NANOCHAT_DEVICE is cuda, and torch finds no GPU"):
        choose_device(settings=DeviceSettings(device="cuda"))


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is a GPU of Apple's")
def test_an_apple_gpu_that_is_not_there_is_said_too() -> None:
    with pytest.raises(InvalidConfig, match="NANOCHAT_DEVICE is mps, and torch finds no GPU of Apple's"):
        choose_device(settings=DeviceSettings(device="mps"))


@pytest.mark.parametrize(
    ("has_cuda", "has_mps", "hip", "capability", "device", "dtype"),
    [
        (True, False, None, (9, 0), "cuda:1", torch.bfloat16),
        (True, False, None, (7, 5), "cuda:1", torch.float16),
        (True, False, "7.1.25424", (9, 0), "cuda:1", torch.bfloat16),
        (True, False, "7.1.25424", (7, 0), "cuda:1", torch.bfloat16),
        (False, True, None, None, "mps", torch.float32),
        (False, False, None, None, "cpu", torch.float32),
    ],
    ids=["H100", "T4", "MI300X", "an older one of AMD's", "Apple's", "none"],
)
def test_device_and_dtype_by_what_torch_says_of_the_machine(
    monkeypatch: pytest.MonkeyPatch,
    has_cuda: bool,
    has_mps: bool,
    hip: str | None,
    capability: tuple[int, int] | None,
    device: str,
    dtype: torch.dtype,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: has_mps)
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    chosen = choose_device(local_rank=1, settings=DeviceSettings(device="auto", num_threads=torch.get_num_threads()))
    assert (str(chosen.device), chosen.dtype) == (device, dtype)


@pytest.mark.parametrize(
    ("precision", "dtype", "matrix_dtype"),
    [
        ("auto", torch.float32, torch.float32),
        ("fp32", torch.float32, torch.float32),
        ("bf16", torch.bfloat16, torch.bfloat16),
        ("fp16", torch.float16, torch.float32),
    ],
)
def test_precision_is_one_setting(precision: str, dtype: torch.dtype, matrix_dtype: torch.dtype) -> None:
    chosen = choose_device(precision, settings=ON_CPU)
    assert (chosen.dtype, chosen.matrix_dtype, chosen.uses_float8) == (dtype, matrix_dtype, False)


def test_float8_is_bfloat16_where_it_does_not_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "require_float8", lambda device: None)
    chosen = choose_device("fp8", settings=ON_CPU)
    assert (chosen.dtype, chosen.matrix_dtype, chosen.uses_float8) == (torch.bfloat16, torch.bfloat16, True)


def test_float8_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(InvalidConfig, match="precision fp8 needs an NVIDIA GPU of Hopper's generation or newer"):
        choose_device("fp8", settings=ON_CPU)


def test_what_a_model_computes_with_is_described() -> None:
    sizes = {"vocab_size": 64, "n_layer": 2, "n_head": 1, "n_kv_head": 1, "n_embd": 128, "window_pattern": "SL"}
    model = GPT(GPTConfig(sequence_len=512, **sizes), torch.bfloat16)  # type: ignore[arg-type]
    described = {"device": "cpu", "precision": "bf16", "attention": "sdpa", "window_attention": "banded"}
    assert describe_setup(model, 512) == described
    assert describe_setup(model, 128) == {**described, "window_attention": "none"}  # rows shorter than the window
    use_float8(model, 512, emulate=True)
    assert describe_setup(model, 512) == {**described, "precision": "fp8"}


def test_a_model_is_left_plain_without_a_compiler_and_refused_when_compiling_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device_module, "_COMPILERS", ("no-such-compiler",))
    config = GPTConfig(sequence_len=16, vocab_size=64, n_layer=1, n_head=1, n_kv_head=1, n_embd=32, window_pattern="L")
    model = GPT(config)
    compile_model(model, None, CPU)
    assert model._compiled_call_impl is None
    with pytest.raises(InvalidConfig, match="there is no C"):
        compile_model(model, True, CPU)


def test_apples_gpus_compile_only_when_asked_to() -> None:
    config = GPTConfig(sequence_len=16, vocab_size=64, n_layer=1, n_head=1, n_kv_head=1, n_embd=32, window_pattern="L")
    model = GPT(config)
    compile_model(model, None, Device(device=torch.device("mps"), dtype=torch.float32, num_threads=1))
    assert model._compiled_call_impl is None


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    assert (read_ranks().rank, read_ranks().world_size) == (0, 1)
    assert not is_under_torchrun()


def test_torchruns_variables_say_which_process_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "TORCHELASTIC_MAX_RESTARTS": "2"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert read_ranks() == Ranks(rank=5, local_rank=1, world_size=8, may_be_restarted=True)


def test_a_device_whose_tensors_cannot_be_sent_trains_with_one_process() -> None:
    with (
        pytest.raises(InvalidConfig, match="num_processes is 2, and device mps trains with one"),
        joined(Ranks(world_size=2), "mps"),
    ):
        pass
