"""Cutting a step's tokens into rows and micro-batches."""

import pytest
import torch

from nanochat.errors import InvalidConfig
from nanochat.recipes.batch import check_sequence_len, cut_batch

CPU = torch.device("cpu")


def test_micro_steps_make_up_the_batch() -> None:
    sizes = cut_batch(4096, 128, 8, device=CPU)
    assert (sizes.device_batch_size, sizes.num_micro_steps, sizes.tokens_per_step) == (8, 4, 4096)


def test_rows_at_a_time_are_chosen_to_divide_the_batch() -> None:
    assert cut_batch(12 * 128, 128, None, device=CPU).device_batch_size == 6
    assert cut_batch(7 * 128, 128, None, device=CPU).device_batch_size == 7
    assert cut_batch(2 * 128, 128, None, device=CPU).device_batch_size == 2


@pytest.mark.parametrize("rows", [3, None])
def test_an_impossible_batch_is_refused_with_its_numbers(rows: int | None) -> None:
    with pytest.raises(InvalidConfig, match="batch of 4000 tokens") as caught:
        cut_batch(4000, 128, rows, device=CPU)
    assert caught.value.param == "total_batch_size"


def test_rows_longer_than_the_model_takes_are_refused() -> None:
    check_sequence_len(128, 128)
    with pytest.raises(InvalidConfig, match="max_seq_len is 129"):
        check_sequence_len(129, 128)
