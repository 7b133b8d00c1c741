"""Cutting a step's tokens into rows and micro-batches."""

import pytest
import torch

from nanochat.errors import InvalidConfig
from nanochat.recipes.__main__ import _explained
from nanochat.recipes.batch import BatchSizes, check_sequence_len, cut_batch, is_failed_allocation, out_of_memory

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


@pytest.mark.parametrize(
    ("rows", "micro_steps", "expected"), [(8, 1, 4), (8, 4, 4), (6, 1, 3), (6, 2, 4), (7, 1, 1), (9, 4, 6)]
)
def test_memory_that_ran_out_is_answered_with_the_next_smaller_rows_that_make_up_the_batch(
    rows: int, micro_steps: int, expected: int
) -> None:
    sizes = BatchSizes(sequence_len=128, device_batch_size=rows, num_micro_steps=micro_steps)
    error = out_of_memory(torch.OutOfMemoryError("CUDA out of memory."), sizes)
    assert error is not None and error.code == "out_of_memory" and error.param == "device_batch_size"
    tokens = rows * micro_steps * 128
    assert f"Try device_batch_size {expected} with total_batch_size {tokens}" in error.message
    cut_batch(tokens, 128, expected, device=CPU)  # which is one that can be


def test_a_single_row_that_does_not_fit_needs_another_model() -> None:
    error = out_of_memory(MemoryError(), BatchSizes(sequence_len=128, device_batch_size=1, num_micro_steps=8))
    assert error is not None and "Lower max_seq_len or depth" in error.message


def test_a_failed_allocation_is_known_on_a_cpu_and_nothing_else_is_taken_for_one() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.int8)
    assert is_failed_allocation(caught.value)
    assert is_failed_allocation(RuntimeError("MPS backend out of memory (MPS allocated: 17.91 GB)"))
    sizes = BatchSizes(sequence_len=128, device_batch_size=8, num_micro_steps=1)
    assert out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"), sizes) is None


def test_memory_that_runs_out_elsewhere_has_the_same_code() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.int8)
    for exc in (caught.value, MemoryError(), torch.OutOfMemoryError("CUDA out of memory.")):
        assert _explained(exc)[0] == "out_of_memory"
    assert _explained(RuntimeError("shapes"))[0] == "internal_error"
