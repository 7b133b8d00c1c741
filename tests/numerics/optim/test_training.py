"""Training against the plain float64 reference, side by side on the same rows: its model, its Muon, torch's AdamW."""

import torch
from torch import Tensor

from nanochat.config import GPTConfig
from nanochat.model.gpt import GPT
from nanochat.model.init import init_weights
from nanochat.model.names import named_tensors
from nanochat.optim.groups import LearningRates, param_groups
from nanochat.optim.optimizer import MuonAdamW
from tests.numerics import reference

CONFIG = GPTConfig(sequence_len=16, vocab_size=70, n_layer=3, n_head=4, n_kv_head=2, n_embd=32, window_pattern="SL")
NUM_STEPS, NUM_ROWS = 20, 2
A = (32 / 768) ** -0.5
# The table of the recipe: rate, betas, decay of what AdamW moves; everything else is Muon's.
ADAMW = {
    "head": (0.008 * A, (0.8, 0.96), 0.01),
    "embedding": (0.3 * A, (0.8, 0.995), 0.001),
    "value_embedding": (0.15 * A, (0.8, 0.995), 0.01),
    "resid_lambdas": (0.005, (0.8, 0.95), 0.05),
    "x0_lambdas": (0.5, (0.96, 0.95), 0.0),
    "smear_gate": (0.2, (0.8, 0.95), 0.0),
    "smear_lambda": (0.2, (0.8, 0.95), 0.0),
    "backout_lambda": (0.2, (0.8, 0.95), 0.0),
}
MUON = {"lr": 0.02, "momentum": 0.95, "beta2": 0.9, "weight_decay": 0.1}


class Reference:
    """The same weights in float64."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.weights = reference.double(tensors)
        self._moments: dict[str, tuple[Tensor, Tensor]] = {}
        self._optimizer = torch.optim.AdamW(
            [
                {"params": [weight], "lr": lr, "betas": betas, "weight_decay": decay}
                for name, weight in self.weights.items()
                if (row := ADAMW.get(name.split(".")[-1])) is not None
                for lr, betas, decay in [row]
            ],
            eps=1e-10,
        )

    def step(self, rows: list[list[int]], targets: list[list[int]]) -> float:
        """The loss before it."""
        loss = reference.loss(self.weights, CONFIG, rows, targets)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        for name, weight in self.weights.items():
            if name.split(".")[-1] not in ADAMW:
                assert weight.grad is not None
                size = weight.size(0) if weight.size(0) >= weight.size(1) else weight.size(1)
                moments = self._moments.get(name, (torch.zeros_like(weight), torch.zeros(size, dtype=weight.dtype)))
                moved, first, second = reference.muon_update(weight.detach(), weight.grad, *moments, **MUON)
                self._moments[name] = first, second
                weight.grad = None
                weight.data.copy_(moved)
        return loss.item()


def test_twenty_steps_have_the_losses_of_the_reference() -> None:
    model = GPT(CONFIG)
    init_weights(model, torch.Generator().manual_seed(11))
    expected = Reference(named_tensors(model))
    optimizer = MuonAdamW(param_groups(model, LearningRates(weight_decay=0.1)))
    dice = torch.Generator().manual_seed(12)
    # Few tokens, each mostly followed by the next one: something that can be learned in so many steps.
    starts = torch.randint(40, (NUM_STEPS, NUM_ROWS, 1), generator=dice)
    batches = (starts + torch.arange(CONFIG.sequence_len + 1) * 3) % 40
    losses = []
    for batch in batches:
        loss = model(batch[:, :-1], batch[:, 1:])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append((loss.item(), expected.step(batch[:, :-1].tolist(), batch[:, 1:].tolist())))
    assert losses[-1][0] < losses[0][0] - 1  # it learns: equal losses of a model that stands still say nothing
    assert max(abs(found - wanted) for found, wanted in losses) < 1e-3, losses
