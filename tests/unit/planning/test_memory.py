"""Bytes that are foretold against those that a built model, its optimizer and its backward pass really hold."""

import pytest
import torch
from torch import Tensor

from nanochat.config import GPTConfig
from nanochat.model.gpt import GPT
from nanochat.model.init import init_weights
from nanochat.optim.groups import param_groups
from nanochat.optim.optimizer import MuonAdamW
from nanochat.planning.memory import activation_bytes, chunk_bytes, estimate_memory, optimizer_bytes

CONFIG = GPTConfig.from_depth(4, vocab_size=1000, sequence_len=256, head_dim=64, window_pattern="L")
GQA = GPTConfig(sequence_len=256, vocab_size=256, n_layer=6, n_head=4, n_kv_head=2, n_embd=128, window_pattern="L")


def make(config: GPTConfig, dtype: torch.dtype = torch.float32) -> GPT:
    model = GPT(config, dtype)
    init_weights(model, torch.Generator().manual_seed(0))
    return model


@pytest.mark.parametrize(("dtype", "compute_bytes"), [(torch.float32, 4), (torch.bfloat16, 2)])
def test_weights_and_gradients_are_those_of_the_model(dtype: torch.dtype, compute_bytes: int) -> None:
    memory = estimate_memory(CONFIG, num_tokens=1, compute_bytes=compute_bytes)
    assert memory.weights == sum(parameter.nbytes for parameter in make(CONFIG, dtype).parameters())
    assert memory.gradients == memory.weights
    assert memory.total > memory.weights + memory.gradients + memory.optimizer


@pytest.mark.parametrize("config", [CONFIG, GQA])
def test_the_optimizers_state_is_that_of_the_optimizer(config: GPTConfig) -> None:
    optimizer = MuonAdamW(param_groups(make(config)))
    held = sum(tensor.nbytes for name, tensor in optimizer.state_tensors().items() if tensor.ndim)
    # Besides the moments a state may count its steps.
    assert optimizer_bytes(config) == pytest.approx(held, abs=64)


def test_each_of_n_ranks_holds_a_part_and_what_does_not_divide_is_rounded_up() -> None:
    whole = optimizer_bytes(CONFIG)
    assert whole / 2 <= optimizer_bytes(CONFIG, 2) < 0.51 * whole
    assert whole / 3 <= optimizer_bytes(CONFIG, 3) < 0.45 * whole
    # With more ranks than matrices of any shape, a rank still holds one of each.
    width = CONFIG.n_embd
    assert optimizer_bytes(CONFIG, 10_000) >= 4 * (width * width + 2 * 4 * width * width)


@pytest.mark.parametrize("config", [CONFIG, GQA])
def test_activations_are_what_autograd_keeps(config: GPTConfig) -> None:
    """Within 3%, the loss's chunk of logits aside, which is gone before the backward pass."""
    model, rows = make(config), 4
    known = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    token_ids = torch.randint(0, config.vocab_size, (rows, config.sequence_len + 1))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(token_ids[:, :-1], token_ids[:, 1:])
    assert loss.requires_grad
    num_tokens = rows * config.sequence_len
    lasting = activation_bytes(config, num_tokens, 4) - chunk_bytes(config, num_tokens)
    assert lasting == pytest.approx(sum(kept.values()), rel=0.03)


def test_a_narrow_dtype_halves_activations_and_keeps_copies_of_the_weights() -> None:
    wide, narrow = activation_bytes(CONFIG, 0, 4), activation_bytes(CONFIG, 0, 2)
    assert wide == 0
    assert narrow == 2 * sum(
        parameter.numel() for name, parameter in make(CONFIG).named_parameters() if parameter.ndim == 2
        and "embedding" not in name and "smear" not in name
    )  # fmt: skip
