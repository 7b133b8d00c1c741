"""A checkpoint is held in memory as it is computed with."""

from pathlib import Path

import pytest
import torch

from nanochat.checkpoint import store
from nanochat.config import GPTConfig
from nanochat.model.gpt import GPT, Linear
from nanochat.model.init import init_weights
from nanochat.model.names import load_tensors, named_tensors
from nanochat.tokenizer.bpe import Tokenizer
from nanochat_inference.loaded_model import LoadedModel
from nanochat_inference.settings import InferenceSettings

CONFIG = GPTConfig(sequence_len=32, vocab_size=265, n_layer=2, n_head=2, n_kv_head=1, n_embd=32)


@pytest.fixture
def trained(home: Path) -> tuple[GPT, Path]:
    """A model in float32, and the folder of its checkpoint."""
    model = GPT(CONFIG)
    init_weights(model, torch.Generator().manual_seed(1))
    with torch.no_grad():
        for block in model.blocks:  # zero at first: a fresh model's layers would add nothing
            block.attention.out.weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(2))
            block.mlp.down.weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(3))
    checkpoint = store.save(
        home,
        "first",
        "sft",
        1,
        model_tensors=named_tensors(model),
        config=CONFIG,
        tokenizer=Tokenizer([bytes([byte]) for byte in range(256)]),
        state={"metrics": {}},
    )
    return model, home / "checkpoints" / checkpoint


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_every_matrix_is_held_in_the_compute_dtype(
    trained: tuple[GPT, Path], precision: str, dtype: torch.dtype
) -> None:
    loaded = LoadedModel.load(trained[1], InferenceSettings(device="cpu", precision=precision))
    matrices = [module.weight for module in loaded.model.modules() if isinstance(module, Linear)]
    assert len(matrices) > 6 * CONFIG.n_layer
    assert {weight.dtype for weight in matrices} == {dtype}
    assert {loaded.cache.keys.dtype, loaded.cache.values.dtype} == {dtype}


def test_casting_once_changes_no_result(trained: tuple[GPT, Path]) -> None:
    model, folder = trained
    cast_every_time = GPT(CONFIG, torch.bfloat16)
    load_tensors(cast_every_time, named_tensors(model))
    loaded = LoadedModel.load(folder, InferenceSettings(device="cpu", precision="bf16"))
    token_ids = torch.arange(24)[None]
    with torch.inference_mode():
        assert torch.equal(loaded.model(token_ids), cast_every_time(token_ids))
