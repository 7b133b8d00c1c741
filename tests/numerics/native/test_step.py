"""The CPU's kernels compute what gpt.py does, and each row to the bit as if it were alone."""

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nanochat.config import GPTConfig
from nanochat.engine.packed_model import NativeModel, Weights
from nanochat.model.gpt import GPT
from nanochat.model.names import named_tensors
from tests.numerics.constants import EARLIER, FIRST
from tests.numerics.native.rows import (
    TOLERANCE,
    all_logits,
    assert_float32_is_the_models,
    assert_rows_are_the_same_in_any_company,
    random_tokens,
    row_by_row,
)

pytestmark = pytest.mark.usefixtures("kernels")

# Sizes that fill vectors, panels and tiles, and sizes that do not.
CONFIGS = {
    "grouped heads, short windows": GPTConfig(
        sequence_len=300, vocab_size=517, n_layer=4, n_head=4, n_kv_head=2, n_embd=96, short_window_divisor=8
    ),
    "whole tiles": GPTConfig(sequence_len=256, vocab_size=768, n_layer=3, n_head=2, n_kv_head=2, n_embd=192),
    "odd sizes": GPTConfig(sequence_len=70, vocab_size=101, n_layer=2, n_head=6, n_kv_head=3, n_embd=60),
    "one layer": GPTConfig(sequence_len=64, vocab_size=100, n_layer=1, n_head=2, n_kv_head=1, n_embd=48),
    "the first constants": GPTConfig(
        **FIRST, sequence_len=64, vocab_size=100, n_layer=2, n_head=2, n_kv_head=1, n_embd=40
    ),
    "earlier constants": GPTConfig(
        **EARLIER, sequence_len=90, vocab_size=100, n_layer=4, n_head=4, n_kv_head=2, n_embd=80
    ),
}


@pytest.fixture(scope="module", params=CONFIGS.values(), ids=CONFIGS.keys())
def model(request: pytest.FixtureRequest, random_model: Callable[[GPTConfig], GPT]) -> GPT:
    return random_model(request.param).requires_grad_(False)


@pytest.mark.parametrize("num_threads", [1, 2, 3, 5])
def test_float32_is_what_the_model_computes_however_rows_are_cut(model: GPT, num_threads: int) -> None:
    assert_float32_is_the_models(model, num_threads)


@pytest.mark.parametrize("weights", ["fp32", "int8"])
def test_a_row_is_to_the_bit_the_same_in_any_company(model: GPT, weights: Weights) -> None:
    assert_rows_are_the_same_in_any_company(model, weights, num_seeds=10)


def test_int8_stays_near_float32(model: GPT) -> None:
    tokens = random_tokens(model, 1)
    (found,) = row_by_row(NativeModel(model.config, named_tensors(model), weights="int8"), tokens, seed=1)
    with torch.inference_mode():
        expected = model(torch.tensor(tokens))[0]
    error = (found - expected).pow(2).mean().sqrt() / expected.std()
    assert 1e-4 < error < 0.05


@pytest.mark.parametrize("weights", ["fp32", "int8"])
def test_int8_products_are_those_of_rounded_operands(weights: Weights) -> None:
    """A head of whole numbers up to 127 loses nothing to int8, so both forms give the exact product."""
    config = GPTConfig(sequence_len=8, vocab_size=80, n_layer=1, n_head=2, n_kv_head=2, n_embd=64, backout=False)
    model = GPT(config).requires_grad_(False)
    for parameter in model.parameters():
        parameter.zero_()
    model.resid_lambdas.fill_(1.0)
    # Of magnitude 1 and 0.5 before the norm: in bytes 127 and 63.5, so halves are left out.
    generator = torch.Generator().manual_seed(7)
    model.embedding.weight.copy_(torch.randint(0, 2, model.embedding.weight.shape, generator=generator) * 2.0 - 1.0)
    model.head.weight.copy_(torch.randint(-127, 128, model.head.weight.shape, generator=generator) / 127.0 * 0.1)
    model.head.weight[:, 0] = 0.1  # every output's largest
    native = NativeModel(config, named_tensors(model), weights=weights)
    found = native.step(native.new_cache(1, 8, 8), [(0, 0, 8)], list(range(8)), [-1, *range(7)], range(8))
    expected = model(torch.arange(8)[None])[0]
    torch.testing.assert_close(found, expected, rtol=0.0, atol=3e-6)


@pytest.mark.parametrize("chunk", [32, 160])  # whose blocks one thread saves, and two
def test_copied_slots_and_restored_blocks_go_on_as_their_source(model: GPT, chunk: int) -> None:
    tokens = random_tokens(model, 1)[0]
    length = len(tokens) - 3
    native = NativeModel(model.config, named_tensors(model), num_threads=2)
    cache = native.new_cache(3, len(tokens), chunk)
    same = [tokens] * 3
    num_blocks = length // 16
    kept = torch.empty(num_blocks, cache.block_bytes, dtype=torch.uint8)
    places = dict(enumerate(torch.randperm(num_blocks, generator=torch.Generator().manual_seed(1)).tolist()))
    for start in range(0, length, chunk):
        all_logits(native, cache, same, [(0, start, min(chunk, length - start))])
        new = range(start // 16, min(start + chunk, length) // 16)
        native.save_blocks(cache, 0, {block: places[block] for block in new}, kept.data_ptr())
    cache.copy_slot(0, 1, length)
    native.restore_blocks(cache, 2, places, kept.data_ptr())
    rest = length // 16 * 16
    if rest < length:
        all_logits(native, cache, same, [(2, rest, length - rest)])
    original, copied, restored = all_logits(native, cache, same, [(slot, length, 1) for slot in range(3)])
    assert torch.equal(original, copied)
    assert torch.equal(original, restored)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rows": [(2, 0, 2)]},
        {"rows": [(-1, 0, 2)]},
        {"rows": [(0, 63, 2)]},
        {"rows": [(0, -1, 2)]},
        {"rows": [(0, 0, 1)]},
        {"rows": [(0, 0, 0), (1, 0, 2)]},
        {"rows": [(0, 0, 1), (0, 1, 1)]},
        {"rows": [], "token_ids": [], "previous_ids": []},
        {"rows": [(0, 0, 9)], "token_ids": [1] * 9, "previous_ids": [-1] * 9},
        {"rows": [(0, 2**31 - 1, 2)]},
        {"token_ids": [1, 100]},
        {"token_ids": [1, -1]},
        {"previous_ids": [-2, 1]},
        {"previous_ids": [-1, 100]},
        {"wanted": [2]},
        {"wanted": [-1]},
    ],
)
def test_nothing_beyond_cache_vocabulary_and_step_is_touched(
    random_model: Callable[[GPTConfig], GPT], wrong: dict[str, list[Any]]
) -> None:
    config = CONFIGS["one layer"]
    native = NativeModel(config, named_tensors(random_model(config)))
    cache = native.new_cache(2, config.sequence_len, 8)
    step: dict[str, list[Any]] = {"rows": [(0, 0, 2)], "token_ids": [1, 2], "previous_ids": [-1, 1], "wanted": [1]}
    expected = native.step(cache, **step)
    with pytest.raises(IndexError):
        native.step(cache, **{**step, **wrong})
    assert torch.equal(native.step(cache, **step), expected)


def test_slots_and_blocks_beyond_the_cache_are_refused(random_model: Callable[[GPTConfig], GPT]) -> None:
    config = CONFIGS["one layer"]
    native = NativeModel(config, named_tensors(random_model(config)))
    cache = native.new_cache(2, config.sequence_len, 8)
    room = torch.empty(cache.block_bytes, dtype=torch.uint8)
    for arguments in ((0, 2, 1), (-1, 0, 1), (0, 1, config.sequence_len + 1), (0, 1, -1)):
        with pytest.raises(IndexError):
            cache.copy_slot(*arguments)
    for copy in (native.save_blocks, native.restore_blocks):
        for slot, block, place in ((2, 0, 0), (-1, 0, 0), (0, -1, 0), (0, config.sequence_len // 16, 0), (0, 0, -1)):
            with pytest.raises(IndexError):
                copy(cache, slot, {block: place}, room.data_ptr())


def test_new_weights_take_the_place_of_old_ones(random_model: Callable[[GPTConfig], GPT]) -> None:
    config = CONFIGS["one layer"]
    model = random_model(config).requires_grad_(False)
    native = NativeModel(config, named_tensors(model))
    for parameter in model.parameters():
        parameter.mul_(0.7)
    native.load(named_tensors(model))
    tokens = random_tokens(model, 1)
    (found,) = row_by_row(native, tokens, seed=2)
    torch.testing.assert_close(found, model(torch.tensor(tokens))[0], rtol=0.0, atol=TOLERANCE)


def test_large_weights_and_caches_are_no_different(random_model: Callable[[GPTConfig], GPT]) -> None:
    """Matrices of more than 32 MiB lie in several buffers, layers of 4 MiB and more are shifted against each other."""
    config = GPTConfig(sequence_len=2048, vocab_size=40000, n_layer=3, n_head=4, n_kv_head=4, n_embd=256)
    model = random_model(config).requires_grad_(False)
    native = NativeModel(config, named_tensors(model), num_threads=2)
    cache = native.new_cache(4, 2048, 256)
    assert cache.size_bytes >= 24 << 20
    tokens = [row[:300] for row in random_tokens(model, 4)]
    starts = (0, 256)
    with torch.inference_mode():
        expected = model(torch.tensor(tokens))
    for start, count in zip(starts, (256, 44), strict=True):
        found = all_logits(native, cache, tokens, [(slot, start, count) for slot in range(4)]).view(4, count, -1)
        torch.testing.assert_close(found, expected[:, start : start + count], rtol=0.0, atol=TOLERANCE)


def test_weights_taken_again_and_again_need_no_more_memory(random_model: Callable[[GPTConfig], GPT]) -> None:
    """As a model's in training are, at every evaluation."""
    config = GPTConfig(sequence_len=64, vocab_size=16384, n_layer=1, n_head=2, n_kv_head=2, n_embd=128)
    tensors = named_tensors(random_model(config))
    native = NativeModel(config, tensors)
    before = _resident_bytes()
    for _ in range(10):
        native.load(tensors)
    assert _resident_bytes() - before < 2 * native.weight_bytes


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_a_windowed_layer_keeps_its_window_and_a_step(random_model: Callable[[GPTConfig], GPT]) -> None:
    sizes = {"sequence_len": 2048, "vocab_size": 64, "n_layer": 4, "n_head": 1, "n_kv_head": 1, "n_embd": 64}
    whole, windowed = (GPTConfig(**sizes, window_pattern=pattern) for pattern in ("L", "SSSL"))
    models = [NativeModel(config, named_tensors(random_model(config))) for config in (whole, windowed)]
    room = {model.config.window_pattern: model.new_cache(1, 2048, 64).size_bytes for model in models}
    # Three layers of four with a window of 512, a step of 64 and a block more.
    assert room["SSSL"] / room["L"] == pytest.approx((3 * (512 + 64 + 16) + 2048) / (4 * 2048), rel=0.01)
