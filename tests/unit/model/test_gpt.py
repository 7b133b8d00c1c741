"""What the model promises its callers besides the numbers: losses, counts, limits, dtypes, compiling whole."""

import pytest
import torch

from nanochat.config import GPTConfig
from nanochat.errors import ContextTooLong, InvalidConfig
from nanochat.model.gpt import GPT
from nanochat.model.init import init_weights
from nanochat.model.kv_cache import KVCache
from nanochat.model.names import named_tensors
from nanochat.model.precision import compute_dtype, embedding_dtype
from nanochat.sizes import flops_per_token, num_parameters

CONFIG = GPTConfig(sequence_len=256, vocab_size=70, n_layer=3, n_head=4, n_kv_head=2, n_embd=32, window_pattern="SL")


def make(config: GPTConfig = CONFIG, dtype: torch.dtype = torch.float32) -> GPT:
    model = GPT(config, dtype)
    init_weights(model, torch.Generator().manual_seed(0))
    for name, tensor in named_tensors(model).items():
        if name.endswith(("attention_out", "mlp_down", "head")):
            tensor.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    return model


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    return torch.randint(70, (2, 31), generator=torch.Generator().manual_seed(2))


def test_reductions_agree_and_leave_out_ignored_targets(tokens: torch.Tensor) -> None:
    model, targets = make(), tokens.flip(1).clone()
    targets[0, :7] = -1
    each = model(tokens, targets, reduction="none")
    assert each.shape == tokens.shape
    assert not each[0, :7].any()
    torch.testing.assert_close(model(tokens, targets, reduction="sum"), each.sum())
    torch.testing.assert_close(model(tokens, targets), each.sum() / (targets >= 0).sum())
    expected = torch.nn.functional.cross_entropy(model(tokens)[1], targets[1], reduction="none")
    torch.testing.assert_close(each[1], expected)


def test_a_batch_without_targets_has_loss_zero(tokens: torch.Tensor) -> None:
    assert make()(tokens, torch.full_like(tokens, -1)).item() == 0


def test_logits_are_float32_of_the_true_vocabulary_below_the_cap(tokens: torch.Tensor) -> None:
    model = make(dtype=torch.bfloat16)
    named_tensors(model)["head"].mul_(1000)
    logits = model(tokens)
    assert logits.shape == (2, 31, 70)
    assert logits.dtype == torch.float32
    assert logits.abs().max() <= 15


def test_low_precision_stays_near_full_precision(tokens: torch.Tensor) -> None:
    narrow, wide = make(dtype=torch.bfloat16), make()
    assert narrow.embedding.weight.dtype == torch.bfloat16
    assert narrow.head.weight.dtype == torch.float32
    # bfloat16 keeps 8 bits; logits here are of order 0.5.
    torch.testing.assert_close(narrow(tokens), wide(tokens), rtol=0, atol=0.05)
    cache = KVCache(CONFIG, 2, 64, dtype=torch.bfloat16)
    found = narrow.forward_cached(tokens[:, :30], cache, torch.arange(2), torch.tensor([30, 30]))
    found = narrow.forward_cached(tokens[:, 30:], cache, torch.arange(2), torch.tensor([1, 1]))
    torch.testing.assert_close(found, wide(tokens)[:, -1], rtol=0, atol=0.05)


def test_rows_longer_than_the_context_are_refused() -> None:
    with pytest.raises(ContextTooLong, match="rows have 257 tokens; the model takes 256"):
        make()(torch.zeros(1, 257, dtype=torch.int64))
    with pytest.raises(ContextTooLong, match="a cache of 257 tokens a slot was asked for; the model takes 256"):
        KVCache(CONFIG, 1, 257)


@pytest.mark.parametrize("changed", [{}, {"value_embeddings": False}, {"smear": False, "backout": False}])
def test_counts_equal_those_worked_out_from_the_config(changed: dict[str, bool]) -> None:
    config = GPTConfig.from_dict(CONFIG.to_dict() | changed)
    model = GPT(config)
    assert model.num_parameters() == num_parameters(config)
    assert model.num_flops_per_token() == flops_per_token(config)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's own look at the loss
@pytest.mark.filterwarnings("ignore:<class 'torch.autograd.function.Function'> should not be")  # and at elementwise.py
def test_all_but_the_loss_compiles_without_a_graph_break(tokens: torch.Tensor) -> None:
    torch.compiler.reset()  # sizes that other models had would be variables here
    model = make()
    longer = tokens.repeat(1, 6)  # past one block of windowed attention
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(longer), model(longer))
    torch.compiler.reset()
    explanation = torch._dynamo.explain(model)(longer, longer.flip(1))  # type: ignore[no-untyped-call]
    assert explanation.graph_count == 1
    torch.compiler.reset()


def test_precision_by_device_and_name() -> None:
    assert compute_dtype("cpu") == torch.float32
    assert compute_dtype("mps") == torch.float32
    assert compute_dtype("cpu", "bf16") == torch.bfloat16
    assert embedding_dtype(torch.bfloat16) == torch.bfloat16
    assert embedding_dtype(torch.float16) == torch.float32
    with pytest.raises(InvalidConfig, match="precision is 'half'"):
        compute_dtype("cpu", "half")
