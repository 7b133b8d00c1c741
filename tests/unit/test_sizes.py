"""What is counted from a config against models that were really built."""

from dataclasses import replace

import pytest

from nanochat.config import GPTConfig
from nanochat.model.gpt import GPT, Linear
from nanochat.model.names import named_parameters
from nanochat.optim.groups import param_groups
from nanochat.sizes import flops_per_token, parameter_shapes, parameters_by_group

CONFIG = GPTConfig(sequence_len=256, vocab_size=70, n_layer=3, n_head=4, n_kv_head=2, n_embd=32, window_pattern="SL")
CONFIGS = [
    CONFIG,
    GPTConfig.from_depth(4, vocab_size=300, sequence_len=512, head_dim=64),
    replace(CONFIG, smear=False, backout=False, value_embeddings=False),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_every_parameter_is_listed_with_its_shape(config: GPTConfig) -> None:
    listed = {name: shape for shapes in parameter_shapes(config).values() for name, shape in shapes.items()}
    built = {name: tuple(parameter.shape) for name, parameter in named_parameters(GPT(config)).items()}
    assert listed == built


@pytest.mark.parametrize("config", CONFIGS)
def test_groups_are_those_of_the_optimizer(config: GPTConfig) -> None:
    counts = dict.fromkeys(parameters_by_group(config), 0)
    for group in param_groups(GPT(config)):
        name = "matrices" if group.rule == "muon" else group.name if group.name in counts else "scalars"
        counts[name] += sum(parameter.numel() for parameter in group.parameters)  # type: ignore[index]
    assert counts == parameters_by_group(config)


@pytest.mark.parametrize("config", CONFIGS)
def test_flops_are_six_a_weight_of_a_linear_map_and_twelve_widths_a_key(config: GPTConfig) -> None:
    weights = sum(module.weight.numel() for module in GPT(config).modules() if isinstance(module, Linear))
    keys = sum(min(window, config.sequence_len) for window in config.windows)
    assert flops_per_token(config) == 6 * weights + 12 * config.n_embd * keys
