"""Base learning rates of a run: the job's own, else those of the run it builds on, else the table's."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nanochat.optim.groups import LearningRates
from nanochat.protocol.jobs import RlConfig, TrainingConfig

log = logging.getLogger(__name__)

_CONFIGURED = ("embedding_lr", "unembedding_lr", "matrix_lr", "scalar_lr")


def base_rates(config: TrainingConfig | RlConfig, inherited: Mapping[str, Any] | None = None) -> LearningRates:
    """Before the factors of batch and stage; `lr_scale` is in it as the factor on AdamW's rates.

    `inherited` is what saved_rates() gave to the checkpoint that this run begins with.
    """
    values: dict[str, float] = {}
    for name in _CONFIGURED:
        own = getattr(config, name)
        value = own if own is not None else (inherited or {}).get(name)
        if value is not None:
            values[name] = value
    rates = replace(LearningRates(adamw_factor=config.lr_scale), **values)
    log.info("learning_rates", extra={**saved_rates(rates), "lr_scale": config.lr_scale})
    return rates


def saved_rates(rates: LearningRates) -> dict[str, float]:
    """What a checkpoint keeps of them. Not the factors: those belong to the run, not to what it found."""
    return {name: getattr(rates, name) for name in _CONFIGURED}


def scaled(rates: LearningRates, factor: float) -> LearningRates:
    """Every rate times a factor."""
    value_embedding_lr = rates.value_embedding_lr
    return replace(
        rates,
        value_embedding_lr=None if value_embedding_lr is None else value_embedding_lr * factor,
        embedding_lr=rates.embedding_lr * factor,
        unembedding_lr=rates.unembedding_lr * factor,
        matrix_lr=rates.matrix_lr * factor,
        scalar_lr=rates.scalar_lr * factor,
        gate_lr=rates.gate_lr * factor,
    )
