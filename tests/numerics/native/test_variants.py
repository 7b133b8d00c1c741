"""What is compiled for other processors computes the same: every variant that this one can run, it runs.

Each is compiled as it is for them, in twenty to forty seconds (ahead.py), once for as long as the sources stay as they
are.
"""

from collections.abc import Callable, Iterator

import pytest
import torch

from nanochat.config import GPTConfig
from nanochat.engine.packed_model import NativeModel, Weights
from nanochat.model.gpt import GPT
from nanochat.model.names import named_tensors
from nanochat.native import build, library
from tests.numerics.native.ahead import compiled
from tests.numerics.native.rounded import int8_logits
from tests.numerics.native.rows import (
    TOLERANCE,
    assert_float32_is_the_models,
    assert_rows_are_the_same_in_any_company,
    random_tokens,
    row_by_row,
)

pytestmark = pytest.mark.usefixtures("kernels", "variant")

CONFIGS = {
    "short windows": GPTConfig(
        sequence_len=200,
        vocab_size=517,
        n_layer=3,
        n_head=4,
        n_kv_head=2,
        n_embd=96,
        short_window_divisor=8,
        short_window_multiple=1,
    ),
    "odd sizes": GPTConfig(sequence_len=70, vocab_size=101, n_layer=2, n_head=6, n_kv_head=3, n_embd=60),
}


@pytest.fixture(scope="module", params=[variant.name for variant in build.variants()])
def variant(request: pytest.FixtureRequest, kernels: None) -> Iterator[str]:
    """Models are packed for this variant's library, whatever the processor's best one is."""
    found = next(each for each in build.variants() if each.name == request.param)
    if found not in build.usable_variants():
        missing = ", ".join(sorted(found.needs - build._processor_flags()))
        pytest.skip(f"this processor has not {missing}" if missing else "Linux lets nobody use AMX's tiles")
    ours = request.config.cache.mkdir("native")
    path = build.find_variant(found, library.load().path.parent) or build.find_variant(found, ours)
    if path is None and build.find_compiler() is None:
        pytest.skip("no C++ compiler is here")
    opened = library.open_step(path or compiled(found, ours))
    assert f"-{found.name}-" in opened.path.name
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "load", lambda: opened)
        yield found.name


@pytest.fixture(scope="module", params=CONFIGS.values(), ids=CONFIGS.keys())
def model(request: pytest.FixtureRequest, random_model: Callable[[GPTConfig], GPT]) -> GPT:
    return random_model(request.param).requires_grad_(False)


def test_every_variant_computes_in_float32_what_the_model_does(model: GPT) -> None:
    assert_float32_is_the_models(model, num_threads=2)


def test_every_variant_computes_in_int8_what_rounded_matrices_give(model: GPT) -> None:
    """Most tokens as exactly as in float32. Now and then a sum lies so near the middle of two numbers that its order
    decides to which it is rounded; from there on a row differs, by less than what int8 itself costs."""
    tokens = [row[:40] for row in random_tokens(model, 16)]
    native = NativeModel(model.config, named_tensors(model), weights="int8", num_threads=2)
    expected = int8_logits(model, torch.tensor(tokens))
    error = (torch.stack(row_by_row(native, tokens, seed=1)) - expected).abs().amax(dim=-1)  # (B, T)
    assert (error < TOLERANCE).float().mean() > 0.5
    assert error.max() < 0.15


@pytest.mark.parametrize("weights", ["fp32", "int8"])
def test_in_every_variant_a_row_is_to_the_bit_the_same_in_any_company(model: GPT, weights: Weights) -> None:
    assert_rows_are_the_same_in_any_company(model, weights, num_seeds=3)
