"""State by parameter name, and refusals of a state that belongs elsewhere."""

import pytest
import torch

from nanochat.config import GPTConfig
from nanochat.errors import InvalidConfig
from nanochat.model.gpt import GPT
from nanochat.model.init import init_weights
from nanochat.model.names import named_tensors
from nanochat.optim.groups import param_groups
from nanochat.optim.optimizer import MuonAdamW

CONFIG = GPTConfig(sequence_len=16, vocab_size=70, n_layer=2, n_head=2, n_kv_head=2, n_embd=32)


def make() -> tuple[GPT, MuonAdamW]:
    model = GPT(CONFIG)
    init_weights(model, torch.Generator().manual_seed(0))
    return model, MuonAdamW(param_groups(model))


def test_every_parameter_has_two_moments_by_its_name() -> None:
    model, optimizer = make()
    expected = {f"{name}.{moment}" for name in named_tensors(model) for moment in ("first", "second")}
    tensors = optimizer.state_tensors()
    assert tensors.keys() == expected | {"num_steps"}
    assert tensors["layer.0.mlp_up.second"].shape == (128, 1)  # tall: one number a row
    assert tensors["layer.0.mlp_down.second"].shape == (1, 128)  # wide: one a column
    assert all(tensor.dtype == torch.float32 for name, tensor in tensors.items() if name != "num_steps")


def test_a_step_moves_every_weight_and_clearing_frees_gradients() -> None:
    model, optimizer = make()
    tokens = torch.randint(70, (2, 17), generator=torch.Generator().manual_seed(1))
    for _ in range(2):  # in the first step nothing reaches what lies before the zero projections
        before = {name: tensor.clone() for name, tensor in named_tensors(model).items()}
        model(tokens[:, :-1], tokens[:, 1:]).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert optimizer.num_steps == 2
    assert all(parameter.grad is None for parameter in model.parameters())
    still = [name for name, tensor in named_tensors(model).items() if torch.equal(tensor, before[name])]
    assert still == []


def test_a_state_of_another_model_is_refused_and_nothing_changes() -> None:
    _, optimizer = make()
    state = {name: torch.ones_like(tensor) for name, tensor in optimizer.state_tensors().items()}
    partial = {name: tensor for name, tensor in state.items() if name != "head.first"}
    with pytest.raises(InvalidConfig, match=r"missing \['head.first'\], unknown \[\]"):
        optimizer.load_state_tensors(partial)
    with pytest.raises(InvalidConfig, match=r"optimizer state head.second has shape \(3,\)"):
        optimizer.load_state_tensors(state | {"head.second": torch.ones(3)})
    assert not any(tensor.any() for tensor in optimizer.state_tensors().values())


def test_low_precision_orthogonalisation_stays_near_full_precision() -> None:
    ends = []
    for dtype in (torch.float32, torch.bfloat16):
        model = GPT(CONFIG)
        init_weights(model, torch.Generator().manual_seed(0))
        optimizer = MuonAdamW(param_groups(model), matrix_dtype=dtype)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
        before = named_tensors(model)["layer.0.query"].clone()
        optimizer.step()
        ends.append(named_tensors(model)["layer.0.query"] - before)
    assert torch.nn.functional.cosine_similarity(ends[0].flatten(), ends[1].flatten(), dim=0) > 0.99
