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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rotary_base", 0.0),
        ("qk_scale", float("nan")),
        ("softcap", "15"),
        ("value_gate_range", True),
        ("short_window_multiple", 0),
        ("smear_channels", 2.5),
    ],
)
def test_a_constant_that_cannot_be_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidConfig, match=f"{name} is ") as caught:
        GPTConfig(**{name: value})
    assert caught.value.param == name


def test_a_short_window_is_a_part_of_the_context_rounded_up() -> None:
    assert GPTConfig(n_layer=2).windows == (512, 2048)
    assert GPTConfig(n_layer=2, sequence_len=1000, short_window_divisor=3).windows == (384, 1000)
    assert GPTConfig(n_layer=2, sequence_len=90, short_window_divisor=2, short_window_multiple=1).windows == (45, 90)
