"""The table of rules and rates: every parameter once, at the rate that the recipe gives it."""

import pytest

from nanochat.config import GPTConfig
from nanochat.model.gpt import GPT
from nanochat.optim.groups import Group, LearningRates, param_groups

CONFIG = GPTConfig(sequence_len=16, vocab_size=70, n_layer=4, n_head=4, n_kv_head=2, n_embd=192)
WIDTH = 2.0  # (192 / 768) ** -0.5


def by_name(rates: LearningRates | None = None, config: GPTConfig = CONFIG) -> dict[str, Group]:
    return {group.name: group for group in param_groups(GPT(config), rates)}


def test_every_parameter_is_in_one_group() -> None:
    model = GPT(CONFIG)
    members = [parameter for group in param_groups(model) for parameter in group.parameters]
    assert {id(parameter) for parameter in members} == {id(parameter) for parameter in model.parameters()}
    assert len(members) == len(list(model.parameters()))


@pytest.mark.parametrize(
    ("name", "lr", "betas", "decay"),
    [
        ("head", 0.008 * WIDTH, (0.8, 0.96), 0.01),
        ("embedding", 0.3 * WIDTH, (0.8, 0.995), 0.001),
        ("value_embeddings", 0.15 * WIDTH, (0.8, 0.995), 0.01),
        ("resid_lambdas", 0.005, (0.8, 0.95), 0.05),
        ("x0_lambdas", 0.5, (0.96, 0.95), 0.0),
        ("smear_backout", 0.2, (0.8, 0.95), 0.0),
    ],
)
def test_adamw_groups_have_the_rates_of_the_table(
    name: str, lr: float, betas: tuple[float, float], decay: float
) -> None:
    group = by_name()[name]
    assert group.rule == "adamw"
    assert group.lr == group.initial_lr == pytest.approx(lr)
    assert group.betas == betas
    assert group.weight_decay == group.initial_weight_decay == decay
    assert group.eps == 1e-10


def test_matrices_are_grouped_by_shape_with_gates_in_a_group_of_their_own() -> None:
    muon = {group.name: group for group in param_groups(GPT(CONFIG)) if group.rule == "muon"}
    assert {name: len(group.names) for name, group in muon.items()} == {
        "matrices 2x12": 2,
        "matrices 96x192": 8,
        "matrices 192x192": 8,
        "matrices 192x768": 4,
        "matrices 768x192": 4,
    }
    assert muon["matrices 2x12"].names == ["layer.1.value_gate", "layer.3.value_gate"]
    assert all((group.lr, group.beta2) == (0.02, 0.9) for group in muon.values())


def test_the_batch_factor_spares_smear_and_backout() -> None:
    plain, scaled = by_name(), by_name(LearningRates(batch_factor=0.5))
    for name, group in scaled.items():
        assert group.lr == pytest.approx(plain[name].lr * (1.0 if name == "smear_backout" else 0.5)), name


def test_the_adamw_factor_spares_matrices() -> None:
    plain, scaled = by_name(), by_name(LearningRates(adamw_factor=0.3))
    for name, group in scaled.items():
        assert group.lr == pytest.approx(plain[name].lr * (1.0 if group.rule == "muon" else 0.3)), name


def test_weight_decay_is_that_of_matrices() -> None:
    groups = by_name(LearningRates(weight_decay=0.7))
    assert groups["matrices 192x192"].weight_decay == 0.7
    assert groups["head"].weight_decay == 0.01


def test_parts_that_a_model_lacks_have_no_group() -> None:
    config = GPTConfig.from_dict(CONFIG.to_dict() | {"value_embeddings": False, "smear": False, "backout": False})
    assert not {"value_embeddings", "smear_backout", "matrices 2x12"} & by_name(config=config).keys()
