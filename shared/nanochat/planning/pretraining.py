"""From a pretraining job's config to its model and its horizon: the one place where nulls become numbers."""

from nanochat.config import GPTConfig
from nanochat.optim.horizon import REFERENCE_WEIGHT_DECAY, Horizon, plan_horizon, whole_rows
from nanochat.protocol.jobs import PretrainConfig

DEFAULT_SEQUENCE_LEN = 2048


def model_of(config: PretrainConfig, vocab_size: int) -> GPTConfig:
    """Raises InvalidConfig on sizes that make no model."""
    return GPTConfig.from_depth(
        config.depth,
        vocab_size=vocab_size,
        sequence_len=config.max_seq_len or DEFAULT_SEQUENCE_LEN,
        aspect_ratio=config.aspect_ratio,
        head_dim=config.head_dim,
        window_pattern=config.window_pattern,
    )


def horizon_of(config: PretrainConfig, model: GPTConfig, num_ranks: int = 1) -> Horizon:
    """Batch, steps and factors. A batch that was not asked for is made one of whole rows of every rank.

    Raises InvalidConfig where not even one step comes out.
    """
    batch_tokens = config.total_batch_size
    while True:
        horizon = plan_horizon(
            model,
            aspect_ratio=config.aspect_ratio,
            ratio=config.target_param_data_ratio,
            batch_tokens=batch_tokens,
            num_steps=config.num_iterations,
            target_flops=config.target_flops,
            weight_decay=REFERENCE_WEIGHT_DECAY if config.weight_decay is None else config.weight_decay,
        )
        if batch_tokens is not None:
            return horizon
        batch_tokens = whole_rows(horizon.batch_tokens, model.sequence_len, config.device_batch_size, num_ranks)
