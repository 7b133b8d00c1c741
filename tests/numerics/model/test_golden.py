"""The model and three whole training steps against numbers from an independent implementation."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nanochat.config import GPTConfig
from nanochat.engine.packed_model import NativeModel
from nanochat.model.gpt import GPT
from nanochat.model.names import load_tensors, named_parameters, named_tensors
from nanochat.optim.groups import LearningRates, param_groups
from nanochat.optim.optimizer import MuonAdamW

CONFIG_KEYS = ("sequence_len", "vocab_size", "n_layer", "n_head", "n_kv_head", "n_embd", "window_pattern")

# A weight whose first gradient is this small is moved by AdamW (eps 1e-10) a whole step in a direction that rounding
# decides; two implementations need not agree about it.
DECIDED_BY_ROUNDING = 1e-8


class Case:
    """One golden model: its numbers, and the library's model with the same weights."""

    def __init__(self, folder: Path, name: str) -> None:
        self.facts: dict[str, Any] = json.loads((folder / f"model_{name}.json").read_text())
        with np.load(folder / f"model_{name}.npz") as arrays:
            self.arrays = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
        self.config = GPTConfig(**{key: self.facts[key] for key in CONFIG_KEYS})
        self.model = GPT(self.config)
        load_tensors(self.model, dict(self.group("weights")))

    def group(self, prefix: str) -> Iterator[tuple[str, Tensor]]:
        for key, array in self.arrays.items():
            if key.startswith(prefix + "/"):
                yield key.removeprefix(prefix + "/"), array


@pytest.fixture(params=["mha", "gqa"])
def case(request: pytest.FixtureRequest, golden: Path) -> Case:
    return Case(golden, request.param)


def test_sizes_are_the_golden_ones(case: Case) -> None:
    assert list(case.config.windows) == case.facts["windows"]
    assert case.model.num_flops_per_token() == case.facts["flops_per_token"]


def test_logits_are_the_golden_ones(case: Case) -> None:
    with torch.no_grad():
        found = case.model(case.arrays["tokens"])[:, :: case.facts["logits_every"]]
    torch.testing.assert_close(found, case.arrays["logits"], rtol=0, atol=1e-5)


@pytest.mark.usefixtures("kernels")
def test_logits_of_the_cpus_kernels_are_the_golden_ones(case: Case) -> None:
    native = NativeModel(case.config, named_tensors(case.model))
    rows = case.arrays["tokens"].tolist()
    cache = native.new_cache(len(rows), case.config.sequence_len, case.config.sequence_len)
    count = len(rows[0])
    token_ids = [token for row in rows for token in row]
    previous = [token for row in rows for token in (-1, *row[:-1])]
    found = native.step(
        cache, [(slot, 0, count) for slot in range(len(rows))], token_ids, previous, range(len(token_ids))
    )
    found = found.view(len(rows), count, -1)[:, :: case.facts["logits_every"]]
    torch.testing.assert_close(found, case.arrays["logits"], rtol=0, atol=1e-5)


def test_gradients_are_the_golden_ones(case: Case) -> None:
    loss = case.model(case.arrays["tokens"], case.arrays["targets"])
    loss.backward()
    assert loss.item() == pytest.approx(case.facts["losses"][0], abs=1e-5)
    parameters = named_parameters(case.model)
    for name, expected in case.group("gradients"):
        torch.testing.assert_close(parameters[name].grad, expected, rtol=1e-4, atol=1e-6, msg=f"gradient of {name}")


def test_three_training_steps_end_where_the_golden_ones_do(case: Case) -> None:
    rates = LearningRates(weight_decay=case.facts["matrix_weight_decay"])
    optimizer = MuonAdamW(param_groups(case.model, rates))
    losses = []
    for _ in range(3):
        loss = case.model(case.arrays["tokens"], case.arrays["targets"])
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    losses.append(case.model(case.arrays["tokens"], case.arrays["targets"]).item())
    assert losses == pytest.approx(case.facts["losses"], abs=1e-5)
    parameters, gradients = named_parameters(case.model), dict(case.group("gradients"))
    for name, expected in case.group("after_3_steps"):
        error = (parameters[name].detach() - expected).abs()
        is_decided = (gradients[name].abs() > DECIDED_BY_ROUNDING) | (gradients[name] == 0)
        assert error[is_decided].max() < 1e-3, f"{name} is off by {error[is_decided].max():.1e}"
        assert error.norm() / expected.norm() < 1e-3, name
