"""Length and batch of a run, given and worked out."""

import math
import subprocess
import sys

import pytest

from nanochat.config import GPTConfig
from nanochat.errors import InvalidConfig
from nanochat.optim.horizon import num_micro_steps, plan_horizon, rows_at_once, whole_rows
from nanochat.sizes import flops_per_token, scaling_parameters

SMALL = GPTConfig.from_depth(4, vocab_size=4096, sequence_len=512, head_dim=64)
REFERENCE = GPTConfig.from_depth(12, vocab_size=4096, sequence_len=512, head_dim=64)


def test_the_reference_model_trains_at_the_reference_rates() -> None:
    horizon = plan_horizon(REFERENCE)
    assert horizon.batch_tokens == 524_288
    assert horizon.lr_factor == 1.0
    assert horizon.weight_decay == pytest.approx(0.28)
    assert horizon.tokens == 12 * scaling_parameters(REFERENCE)


def test_a_given_batch_sets_rates_and_steps() -> None:
    horizon = plan_horizon(SMALL, batch_tokens=4096)
    assert horizon.batch_tokens == 4096
    assert horizon.num_steps == horizon.tokens // 4096
    assert horizon.lr_factor == pytest.approx(math.sqrt(4096 / 524_288))
    decay = 0.28 * horizon.lr_factor * scaling_parameters(REFERENCE) / scaling_parameters(SMALL)
    assert horizon.weight_decay == pytest.approx(decay)


def test_given_steps_go_before_a_flop_budget_and_that_before_the_horizon() -> None:
    per_step = flops_per_token(SMALL) * 4096
    assert plan_horizon(SMALL, batch_tokens=4096, num_steps=7, target_flops=100 * per_step).num_steps == 7
    assert plan_horizon(SMALL, batch_tokens=4096, target_flops=100 * per_step).num_steps == 100


def test_a_larger_ratio_trains_longer_in_the_same_batches() -> None:
    short, long = plan_horizon(SMALL, ratio=8.0), plan_horizon(SMALL)
    assert long.tokens == pytest.approx(1.5 * short.tokens, abs=2)
    assert long.batch_tokens == short.batch_tokens


def test_a_run_without_a_step_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="the run would have no step"):
        plan_horizon(SMALL, target_flops=1.0)


def test_a_batch_is_a_whole_number_of_micro_steps() -> None:
    assert num_micro_steps(8192, 4, 512, 2) == 2
    with pytest.raises(InvalidConfig, match=r"5000 tokens is no multiple of 2048 \(device_batch_size 4 x 512 tokens"):
        num_micro_steps(5000, 4, 512)


def test_a_batch_worked_out_is_rounded_up_to_whole_rows_of_every_rank() -> None:
    assert whole_rows(1024, 100, None) == 1100
    assert whole_rows(1024, 100, 4) == 1200
    assert whole_rows(1024, 128, 8) == 1024
    assert whole_rows(1024, 128, 2, num_ranks=3) == 1536


def test_rows_at_once_divide_what_each_rank_has_of_the_batch() -> None:
    assert rows_at_once(12 * 128, 128, 8) == 6
    assert rows_at_once(12 * 128, 128, 8, num_ranks=4) == 3


def test_the_arithmetic_needs_no_torch() -> None:
    code = "import sys, nanochat.optim.horizon; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
