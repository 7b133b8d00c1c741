"""Automatic sizes by depth against golden ones."""

import json
from pathlib import Path

import pytest

from nanochat.config import GPTConfig
from nanochat.optim.horizon import plan_horizon
from nanochat.sizes import flops_per_token, num_parameters


def test_horizons_are_the_golden_ones(golden: Path) -> None:
    rows = json.loads((golden / "sizes.json").read_text())
    assert rows
    for row in rows:
        config = GPTConfig.from_depth(row["depth"], vocab_size=32768)
        horizon = plan_horizon(config)
        assert config.n_embd == row["width"]
        assert num_parameters(config) == row["params"]
        assert flops_per_token(config) == row["flops_per_token"]
        assert horizon.scaling_parameters == row["scaling_params"]
        assert horizon.tokens == row["tokens"]
        assert horizon.batch_tokens == row["batch_tokens"]
        assert horizon.num_steps == row["steps"]
        assert horizon.lr_factor == pytest.approx(row["lr_factor"], rel=1e-12)
        assert horizon.weight_decay == pytest.approx(row["muon_weight_decay"], rel=1e-12)
