"""Whose learning rates a run takes."""

import pytest

from nanochat.optim.groups import LearningRates
from nanochat.protocol.jobs import SftConfig
from nanochat.recipes.rates import base_rates, saved_rates, scaled

MIXTURE = [{"task": "spelling"}]


def config(**values: object) -> SftConfig:
    return SftConfig.model_validate({"checkpoint": "base", "mixture": MIXTURE, **values})


def test_the_jobs_own_rates_go_before_the_bases_and_those_before_the_tables() -> None:
    rates = base_rates(config(embedding_lr=0.1), {"embedding_lr": 0.7, "matrix_lr": 0.01})
    assert (rates.embedding_lr, rates.matrix_lr) == (0.1, 0.01)
    assert rates.scalar_lr == LearningRates().scalar_lr


def test_a_rate_of_zero_is_a_rate() -> None:
    assert base_rates(config(matrix_lr=0.0), {"matrix_lr": 0.01}).matrix_lr == 0.0


def test_what_a_checkpoint_keeps_does_not_hold_the_runs_own_factor() -> None:
    rates = base_rates(config(lr_scale=0.3))
    assert rates.adamw_factor == 0.3
    assert saved_rates(rates) == saved_rates(LearningRates())


def test_a_stages_factor_is_on_every_rate() -> None:
    before, after = LearningRates(), scaled(LearningRates(), 0.5)
    for name in ("embedding_lr", "unembedding_lr", "matrix_lr", "scalar_lr", "gate_lr"):
        assert getattr(after, name) == pytest.approx(0.5 * getattr(before, name))


def test_value_embeddings_with_a_rate_of_their_own_are_scaled_too() -> None:
    assert scaled(LearningRates(), 0.5).value_embedding_lr is None  # half of the embedding's, which is
    assert scaled(LearningRates(value_embedding_lr=0.15), 0.5).value_embedding_lr == 0.075
