"""How long to train, in which batches, and what that does to rates: arithmetic from a model's sizes. Torch-free.

Follows the scaling of the reference run, a model of depth 12 and batches of 524288 tokens. The rates' course within a
run is schedule.py's.
"""

import math
from dataclasses import dataclass

from nanochat.config import GPTConfig
from nanochat.errors import InvalidConfig
from nanochat.sizes import flops_per_token, scaling_parameters

REFERENCE_DEPTH = 12
REFERENCE_BATCH_TOKENS = 524_288
BATCH_EXPONENT = 0.383  # the best batch grows with this power of the number of training tokens
REFERENCE_WEIGHT_DECAY = 0.28
TOKENS_PER_PARAMETER = 12.0


@dataclass(frozen=True, kw_only=True)
class Horizon:
    """A run's length and batch. tokens is the model's own horizon, whatever number of steps was asked for."""

    scaling_parameters: int
    tokens: int
    batch_tokens: int
    num_steps: int
    lr_factor: float  # for LearningRates.batch_factor
    weight_decay: float  # of matrices, at the first step


def plan_horizon(
    config: GPTConfig,
    *,
    aspect_ratio: int = 64,
    ratio: float = TOKENS_PER_PARAMETER,
    batch_tokens: int | None = None,
    num_steps: int | None = None,
    target_flops: float | None = None,
    weight_decay: float = REFERENCE_WEIGHT_DECAY,
) -> Horizon:
    """Work out what is not given. Steps: num_steps, else what target_flops pay for, else tokens // batch_tokens.

    aspect_ratio is the one the config was made with; the reference model shares it, head_dim and vocabulary. Raises
    InvalidConfig where not even one step comes out.
    """
    reference = GPTConfig.from_depth(
        REFERENCE_DEPTH,
        vocab_size=config.vocab_size,
        sequence_len=config.sequence_len,
        aspect_ratio=aspect_ratio,
        head_dim=config.head_dim,
        window_pattern=config.window_pattern,
    )
    parameters = scaling_parameters(config)
    tokens = int(ratio * parameters)
    reference_tokens = ratio * scaling_parameters(reference)
    if batch_tokens is None:
        best = REFERENCE_BATCH_TOKENS * (tokens / reference_tokens) ** BATCH_EXPONENT
        batch_tokens = 2 ** round(math.log2(best))
    if num_steps is None:
        if target_flops is not None:
            num_steps = round(target_flops / (flops_per_token(config) * batch_tokens))
        else:
            num_steps = tokens // batch_tokens
    if num_steps < 1:
        raise InvalidConfig(
            f"the run would have no step: {tokens} tokens in batches of {batch_tokens}. Give num_iterations, a smaller "
            "total_batch_size or a larger target.",
            param="num_iterations",
        )
    factor = math.sqrt(batch_tokens / REFERENCE_BATCH_TOKENS)
    return Horizon(
        scaling_parameters=parameters,
        tokens=tokens,
        batch_tokens=batch_tokens,
        num_steps=num_steps,
        lr_factor=factor,
        weight_decay=weight_decay * factor * reference_tokens / tokens,
    )


def num_micro_steps(batch_tokens: int, device_batch_size: int, sequence_len: int, num_ranks: int = 1) -> int:
    """Forward and backward passes of each rank that make up a batch. Raises InvalidConfig where they do not."""
    at_once = device_batch_size * sequence_len * num_ranks
    if batch_tokens % at_once:
        raise InvalidConfig(
            f"a batch of {batch_tokens} tokens is no multiple of {at_once} (device_batch_size {device_batch_size} x "
            f"{sequence_len} tokens x {num_ranks} ranks); change total_batch_size or device_batch_size.",
            param="total_batch_size",
        )
    return batch_tokens // at_once


def rows_at_once(batch_tokens: int, sequence_len: int, most: int, num_ranks: int = 1) -> int:
    """The largest number of rows, up to `most`, that divides a rank's part of a batch. Raises InvalidConfig."""
    num_rows = num_micro_steps(batch_tokens, 1, sequence_len, num_ranks)
    return next(rows for rows in range(min(num_rows, most), 0, -1) if num_rows % rows == 0)


def whole_rows(batch_tokens: int, sequence_len: int, device_batch_size: int | None, num_ranks: int = 1) -> int:
    """A batch that was worked out and not asked for, rounded up to whole micro-steps of every rank."""
    unit = sequence_len * (device_batch_size or 1) * num_ranks
    return -(-batch_tokens // unit) * unit
