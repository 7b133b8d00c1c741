"""The course of rates over each stage of training."""

import pytest
import torch

from nanochat.config import GPTConfig
from nanochat.model.gpt import GPT
from nanochat.optim.groups import LearningRates, param_groups
from nanochat.optim.schedule import PretrainSchedule, RlSchedule, SftSchedule, apply_schedule


def test_pretraining_warms_up_stays_and_warms_down() -> None:
    schedule = PretrainSchedule(num_steps=1000)
    found = [schedule.lr_multiplier(step) for step in (0, 19, 39, 40, 350, 675, 1000)]
    assert found == pytest.approx([1 / 40, 0.5, 1.0, 1.0, 1.0, 0.525, 0.05])


def test_a_run_too_short_for_both_ramps_still_ends_low() -> None:
    schedule = PretrainSchedule(num_steps=20)
    multipliers = [schedule.lr_multiplier(step) for step in range(20)]
    assert multipliers[0] == pytest.approx(1 / 40)
    assert multipliers[-1] == pytest.approx(1 - 0.95 * 12 / 13)
    assert max(multipliers) < 0.5


def test_no_warmup_and_no_warmdown_is_a_constant_rate() -> None:
    schedule = PretrainSchedule(num_steps=10, warmup_steps=0, warmdown_ratio=0.0)
    assert [schedule.lr_multiplier(step) for step in range(11)] == [1.0] * 11


def test_momentum_rises_first_and_falls_in_the_warm_down() -> None:
    schedule = PretrainSchedule(num_steps=2000)
    found = [schedule.muon_momentum(step) for step in (0, 200, 400, 700, 1350, 2000)]
    assert found == pytest.approx([0.85, 0.91, 0.97, 0.97, 0.935, 0.90])
    short = PretrainSchedule(num_steps=500)  # the warm-down begins at step 175, the ramp goes on to step 400
    assert short.muon_momentum(300) == pytest.approx(0.94)
    assert short.muon_momentum(500) == pytest.approx(0.90)


def test_matrix_weight_decay_falls_as_a_cosine() -> None:
    schedule = PretrainSchedule(num_steps=100)
    found = [schedule.weight_decay_multiplier(step) for step in (0, 50, 100)]
    assert found == pytest.approx([1.0, 0.5, 0.0], abs=1e-12)


def test_fine_tuning_is_flat_for_half_and_then_linear() -> None:
    schedule = SftSchedule(num_steps=400)
    assert [schedule.lr_multiplier(step) for step in (0, 200, 300, 400)] == pytest.approx([1, 1, 0.5, 0])
    assert [schedule.muon_momentum(step) for step in (0, 150, 300, 399)] == pytest.approx([0.85, 0.90, 0.95, 0.95])
    assert schedule.weight_decay_multiplier(0) == 0


def test_reinforcement_learning_falls_to_zero() -> None:
    schedule = RlSchedule(num_steps=10)
    assert [schedule.lr_multiplier(step) for step in (0, 5, 9)] == pytest.approx([1, 0.5, 0.1])


def test_a_schedule_sets_the_groups_and_leaves_adamw_decay_alone() -> None:
    with torch.device("meta"):
        model = GPT(GPTConfig(sequence_len=16, vocab_size=70, n_layer=2, n_head=2, n_kv_head=2, n_embd=32))
    groups = param_groups(model, LearningRates(weight_decay=0.4))
    apply_schedule(PretrainSchedule(num_steps=100, warmup_steps=2), groups, 50)
    for group in groups:
        assert group.lr == pytest.approx(group.initial_lr * (1 - 0.95 * 15 / 65))
        if group.rule == "muon":
            assert group.momentum == pytest.approx(0.85 + 0.12 * 50 / 400)
            assert group.weight_decay == pytest.approx(0.2)
        else:
            assert group.weight_decay == group.initial_weight_decay
