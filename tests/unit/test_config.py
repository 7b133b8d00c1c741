"""Sizes of a model that cannot be."""

from typing import Any

import pytest

from nanochat.config import GPTConfig
from nanochat.errors import InvalidConfig

NARROW: dict[str, Any] = {"n_layer": 1, "n_head": 1, "n_kv_head": 1, "n_embd": 8}


def test_a_model_too_narrow_for_its_gates_is_refused_by_the_gate() -> None:
    with pytest.raises(InvalidConfig, match="n_embd 8 is below the 24 smear_channels") as caught:
        GPTConfig(**NARROW)
    assert caught.value.param == "n_embd"
    with pytest.raises(InvalidConfig, match="below the 12 value_gate_channels"):
        GPTConfig(**NARROW, smear=False)


def test_a_narrow_model_without_those_gates_is_fine() -> None:
    assert GPTConfig(**NARROW, smear=False, value_embeddings=False).n_embd == 8
    assert GPTConfig(**NARROW, smear_channels=8, value_gate_channels=4).n_embd == 8
