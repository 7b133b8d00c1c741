"""How the tokens of a step are cut into rows and micro-batches."""

import logging
from dataclasses import dataclass

import torch

from nanochat.errors import InvalidConfig, OutOfMemory
from nanochat.hardware import DEFAULT_ROWS
from nanochat.optim.horizon import num_micro_steps, rows_at_once

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BatchSizes:
    """`device_batch_size` rows of `sequence_len` tokens at a time, `num_micro_steps` times a step, on every rank."""

    sequence_len: int
    device_batch_size: int
    num_micro_steps: int
    num_ranks: int = 1

    @property
    def tokens_per_step(self) -> int:
        return self.sequence_len * self.rows_per_step

    @property
    def rows_per_step(self) -> int:
        return self.device_batch_size * self.num_micro_steps * self.num_ranks


def cut_batch(
    batch_tokens: int, sequence_len: int, device_batch_size: int | None, *, device: torch.device, num_ranks: int = 1
) -> BatchSizes:
    """Without device_batch_size: the largest number of rows, up to the device's default, that divides a rank's share.

    Raises InvalidConfig where ranks, rows, or rows at a time, do not divide the batch.
    """
    if device_batch_size is None:
        device_batch_size = rows_at_once(batch_tokens, sequence_len, DEFAULT_ROWS[device.type], num_ranks)
    sizes = BatchSizes(
        sequence_len=sequence_len,
        device_batch_size=device_batch_size,
        num_micro_steps=num_micro_steps(batch_tokens, device_batch_size, sequence_len, num_ranks),
        num_ranks=num_ranks,
    )
    log.info("batch_cut", extra={**vars(sizes), "batch_tokens": batch_tokens})
    return sizes


def out_of_memory(exc: BaseException, sizes: BatchSizes) -> OutOfMemory | None:
    """What a failed allocation means for whoever chose the sizes; None where the exception is none.

    Names the next smaller device_batch_size that makes up the same batch.
    """
    if not is_failed_allocation(exc):
        return None
    rows, sequence_len = sizes.device_batch_size, sizes.sequence_len
    of_a_rank = rows * sizes.num_micro_steps
    smaller = next((fewer for fewer in range(rows - 1, 0, -1) if of_a_rank % fewer == 0), None)
    if smaller is None:
        advice = "Lower max_seq_len or depth"
    else:
        same = f"total_batch_size {sizes.tokens_per_step}, which is the same step in more parts"
        advice = f"Try device_batch_size {smaller} with {same}"
    return OutOfMemory(
        f"memory ran out with device_batch_size {rows}, rows of {sequence_len} tokens at a time. {advice}.",
        param="device_batch_size",
    )


def is_failed_allocation(exc: BaseException) -> bool:
    """Of any device's memory. Allocators of CPU and MPS raise a RuntimeError that only its text tells."""
    if isinstance(exc, MemoryError | torch.OutOfMemoryError):
        return True
    texts = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(exc, RuntimeError) and any(text in str(exc) for text in texts)


def check_sequence_len(asked: int, limit: int) -> None:
    """Raises InvalidConfig for rows longer than the model takes."""
    if asked > limit:
        raise InvalidConfig(
            f"max_seq_len is {asked}; the checkpoint's model takes {limit}. Give that or less.", param="max_seq_len"
        )
