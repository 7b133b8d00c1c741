"""A run that was saved and taken up again is the run that was never interrupted, bit for bit on CPU."""

import torch

from nanochat.config import GPTConfig
from nanochat.model.gpt import GPT
from nanochat.model.init import init_weights
from nanochat.model.names import load_tensors, named_tensors
from nanochat.optim.groups import LearningRates, param_groups
from nanochat.optim.optimizer import MuonAdamW
from nanochat.optim.schedule import PretrainSchedule, apply_schedule

CONFIG = GPTConfig(sequence_len=32, vocab_size=70, n_layer=2, n_head=2, n_kv_head=2, n_embd=32)


def fresh(seed: int) -> tuple[GPT, MuonAdamW]:
    model = GPT(CONFIG)
    init_weights(model, torch.Generator().manual_seed(seed))
    return model, MuonAdamW(param_groups(model, LearningRates(weight_decay=0.1)))


def train(model: GPT, optimizer: MuonAdamW, steps: range) -> None:
    schedule = PretrainSchedule(num_steps=8, warmup_steps=2)
    for step in steps:
        batch = torch.randint(CONFIG.vocab_size, (2, 33), generator=torch.Generator().manual_seed(step))
        apply_schedule(schedule, optimizer.groups, step)
        model(batch[:, :-1], batch[:, 1:]).backward()
        optimizer.step()
        optimizer.zero_grad()


def test_a_resumed_run_equals_an_uninterrupted_one() -> None:
    model, optimizer = fresh(0)
    train(model, optimizer, range(4))
    weights = {name: tensor.clone() for name, tensor in named_tensors(model).items()}
    state = {name: tensor.clone() for name, tensor in optimizer.state_tensors().items()}
    train(model, optimizer, range(4, 8))

    resumed, resumed_optimizer = fresh(1)
    load_tensors(resumed, weights)
    resumed_optimizer.load_state_tensors(state)
    train(resumed, resumed_optimizer, range(4, 8))
    expected = named_tensors(model)
    for name, tensor in named_tensors(resumed).items():
        assert torch.equal(tensor, expected[name]), name
    for name, tensor in resumed_optimizer.state_tensors().items():
        assert torch.equal(tensor, optimizer.state_tensors()[name]), name


def test_training_lowers_the_loss_of_a_batch_it_sees_again() -> None:
    model, optimizer = fresh(0)
    batch = torch.randint(CONFIG.vocab_size, (4, 33), generator=torch.Generator().manual_seed(9))
    losses = []
    for _ in range(20):
        loss = model(batch[:, :-1], batch[:, 1:])
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0] / 4
