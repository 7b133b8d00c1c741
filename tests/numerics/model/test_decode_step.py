"""A step of one token a row with fixed shapes computes what whole rows do, beside rows that fill it up."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nanochat.config import GPTConfig
from nanochat.engine.backend import Chunk
from nanochat.engine.decode_graphs import DecodeGraphs, record_on_cuda
from nanochat.model.gpt import GPT
from nanochat.model.kv_cache import KVCache
from tests.cuda_stand_ins import record, use_paged_flash_attn
from tests.gpus import NEEDS_GPU

CONFIG = GPTConfig(
    sequence_len=200,
    vocab_size=70,
    n_layer=3,
    n_head=4,
    n_kv_head=2,
    n_embd=32,
    window_pattern="SL",
    short_window_divisor=8,
    short_window_multiple=1,
)
TOLERANCE = {"rtol": 0.0, "atol": 2e-5}
ON_GPU = {"rtol": 0.0, "atol": 1e-3}  # float32 too, but other exponentials and sums in another order

OLDER = CONFIG.to_dict() | {"smear": False, "backout": False, "value_embeddings": False, "qk_scale": 1.0}


@pytest.fixture(scope="module", params=[CONFIG, GPTConfig.from_dict(OLDER)], ids=["every part", "older"])
def model(request: pytest.FixtureRequest, random_model: Callable[[GPTConfig], GPT]) -> GPT:
    return random_model(request.param).requires_grad_(False)


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    return torch.randint(CONFIG.vocab_size, (5, CONFIG.sequence_len), generator=torch.Generator().manual_seed(3))


def copy_to(model: GPT, device: str, dtype: torch.dtype = torch.float32) -> GPT:
    """With the same weights; on a CPU in float32 the model itself."""
    if device == "cpu":
        return model
    on_gpu = GPT(model.config, dtype).to(device).requires_grad_(False)
    on_gpu.load_state_dict(model.state_dict())
    return on_gpu


def feed(model: GPT, cache: KVCache, tokens: Tensor, slot: int, num_new: int) -> None:
    """Fill an empty slot with the first num_new of tokens (T,)."""
    for ids in tokens[:num_new].split(cache.max_chunk):
        model.forward_cached(ids[None].to(model.device), cache, torch.tensor([slot]), torch.tensor([len(ids)]))


@pytest.mark.parametrize("max_chunk", [None, 16], ids=["the whole context", "rings"])
@pytest.mark.parametrize(
    ("device", "with_flash"), [("cpu", False), ("cpu", True), pytest.param("cuda", False, marks=NEEDS_GPU)]
)
def test_decoding_by_recordings_equals_whole_rows(
    model: GPT,
    tokens: Tensor,
    device: str,
    with_flash: bool,
    max_chunk: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows of different lengths, some beyond the window, in numbers that do not fill a recording; one is new. All of
    them go on round the rings. On CUDA by graphs, in float32, and beside the CPU's whole rows."""
    if with_flash:
        use_paged_flash_attn(monkeypatch)
    whole = model(tokens)
    tolerance = TOLERANCE if device == "cpu" else ON_GPU
    cache = KVCache(CONFIG, 6, CONFIG.sequence_len, device, max_chunk=max_chunk)
    assert (cache.keys[0].size(1) < 50) == (max_chunk is not None)
    model = copy_to(model, device)
    starts = [3, 140, 0, 1, 60]
    for row, start in enumerate(starts):
        if start:
            feed(model, cache, tokens[row], row, start)
    graphs = DecodeGraphs(model, cache, record if device == "cpu" else record_on_cuda)
    for rows in [[0, 1, 2, 3, 4], [4, 1, 0], [2], [0, 1, 2, 3, 4], [3, 2]] * 16:
        chunks = [
            Chunk(row, starts[row], [int(tokens[row, starts[row]])], int(tokens[row, starts[row] - 1])) for row in rows
        ]
        found = graphs.run(chunks).cpu()
        for at, row in enumerate(rows):
            torch.testing.assert_close(found[at], whole[row, starts[row]], **tolerance)
            starts[row] += 1
    assert cache.lengths[:5].tolist() == starts


@pytest.mark.parametrize("max_chunk", [None, 16], ids=["the whole context", "rings"])
def test_a_recording_reads_no_more_than_each_row_sees(model: GPT, tokens: Tensor, max_chunk: int | None) -> None:
    """What lies before its window is spoilt, and nobody learns of it."""
    cache = KVCache(CONFIG, 3, CONFIG.sequence_len, max_chunk=max_chunk)
    starts = [150, 199]
    for row, start in enumerate(starts):
        feed(model, cache, tokens[row], row, start)
        for numbers in (cache.keys[0], cache.values[0]):
            first_held = max(0, start + 1 - numbers.size(1))  # once the next token is stored
            places = [position % numbers.size(1) for position in range(first_held, start - CONFIG.windows[0])]
            numbers[row, places] = float("nan")
    chunks = [
        Chunk(row, start, [int(tokens[row, start])], int(tokens[row, start - 1])) for row, start in enumerate(starts)
    ]
    whole = model(tokens[:2])
    found = DecodeGraphs(model, cache, record).run(chunks)
    torch.testing.assert_close(found, torch.stack([whole[0, 150], whole[1, 199]]), **TOLERANCE)


@NEEDS_GPU
def test_on_cuda_recordings_are_graphs(model: GPT, tokens: Tensor) -> None:
    on_gpu = copy_to(model, "cuda", torch.bfloat16)
    cache = KVCache(CONFIG, 3, CONFIG.sequence_len, "cuda", torch.bfloat16)
    graphs, previous = DecodeGraphs(on_gpu, cache), -1
    for position in range(20):
        chunks = [Chunk(row, position, [int(tokens[row, position])], previous) for row in range(2)]
        found = graphs.run(chunks).float().cpu()
        expected = on_gpu(tokens[:2, : position + 1].cuda())[:, -1].float().cpu()
        torch.testing.assert_close(found, expected, rtol=0.0, atol=0.3)
