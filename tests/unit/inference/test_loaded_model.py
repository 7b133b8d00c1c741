"""A checkpoint is held in memory as it is computed with."""

from pathlib import Path

import pytest
import torch

from nanochat.checkpoint import manifest, store
from nanochat.config import GPTConfig
from nanochat.engine.backend import Chunk
from nanochat.errors import InvalidConfig, Unavailable
from nanochat.model.gpt import GPT
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


def test_low_precision_computes_as_the_model_does_in_it(trained: tuple[GPT, Path]) -> None:
    model, folder = trained
    narrow = GPT(CONFIG, torch.bfloat16)
    load_tensors(narrow, named_tensors(model))
    loaded = LoadedModel.load(folder, InferenceSettings(device="cpu", precision="bf16"))
    assert loaded.backend.weights == "bfloat16"
    token_ids = list(range(24))
    with torch.inference_mode():
        expected = narrow(torch.tensor([token_ids]))[0]
    assert torch.equal(loaded.backend.forward_all(Chunk(0, 0, token_ids, -1)), expected)


@pytest.mark.usefixtures("kernels")
def test_a_load_tells_of_its_progress_by_file_tensor_and_text(trained: tuple[GPT, Path]) -> None:
    model, folder = trained
    num_told = [0, 0]

    def tell(load: int) -> None:
        num_told[load] += 1

    plain, weighed = (InferenceSettings(device="cpu", precision=precision) for precision in ("fp32", "auto"))
    LoadedModel.load(folder, plain, lambda: tell(0))
    LoadedModel.load(folder, weighed, lambda: tell(1))
    num_files = len(manifest.read(folder)["files"])  # all below a MiB
    num_matrices = 4 * model.config.n_layer + 1
    assert num_told[0] == num_files + 2 * len(named_tensors(model)) + num_matrices, "read, copied and packed"
    # 1536 tokens of text in rows of 32, each of them twice, after packing for either.
    assert num_told[1] - num_told[0] >= 2 * (1536 // 32 + num_matrices)


@pytest.mark.usefixtures("kernels")
def test_int8_is_taken_where_it_costs_little_enough(trained: tuple[GPT, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    _, folder = trained
    assert LoadedModel.load(folder, InferenceSettings(device="cpu")).backend.weights == "int8"
    monkeypatch.setattr("nanochat_inference.loaded_model.int8_cost_ratio", lambda *_: 0.0051)
    assert LoadedModel.load(folder, InferenceSettings(device="cpu")).backend.weights == "fp32"
    allowing = InferenceSettings(device="cpu", int8_max_cost_ratio=0.0051)
    assert LoadedModel.load(folder, allowing).backend.weights == "int8"


@pytest.mark.usefixtures("kernels")
def test_int8_by_name_is_refused_where_it_costs_more_than_it_may(
    trained: tuple[GPT, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = trained
    named = InferenceSettings(device="cpu", precision="int8")
    assert LoadedModel.load(folder, named).backend.weights == "int8"
    monkeypatch.setattr("nanochat_inference.loaded_model.int8_cost_ratio", lambda *_: 0.0051)
    with pytest.raises(InvalidConfig, match=r"int8 costs this model 0.51% in bits per byte, and may cost 0.50%"):
        LoadedModel.load(folder, named)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("precision", ["auto", "int8"])
def test_without_a_bound_int8_is_taken_and_not_measured(
    trained: tuple[GPT, Path], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("nanochat_inference.loaded_model.int8_cost_ratio")
    settings = InferenceSettings(device="cpu", precision=precision, int8_max_cost_ratio=0)
    assert LoadedModel.load(trained[1], settings).backend.weights == "int8"


def test_without_kernels_a_model_runs_on_torch_and_int8_is_refused(
    trained: tuple[GPT, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> None:
        raise Unavailable("no C++ compiler is here")

    monkeypatch.setattr("nanochat.native.library.load", none)
    assert LoadedModel.load(trained[1], InferenceSettings(device="cpu")).backend.weights == "float32"
    with pytest.raises(InvalidConfig, match="int8 weights need the CPU's kernels: no C"):
        LoadedModel.load(trained[1], InferenceSettings(device="cpu", precision="int8"))
