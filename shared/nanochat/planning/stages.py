"""The stages of a job or a pipeline before they run: model, batch, steps, tokens and FLOPs of each.

Of what is only known once it runs (a fine-tuning of one pass over its conversations, say) the numbers are None.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from nanochat.config import GPTConfig
from nanochat.errors import InvalidConfig
from nanochat.hardware import DEFAULT_ROWS
from nanochat.optim.horizon import num_micro_steps, rows_at_once
from nanochat.planning.memory import Memory, estimate_memory
from nanochat.planning.pretraining import DEFAULT_SEQUENCE_LEN, horizon_of, model_of
from nanochat.protocol.jobs import Job, PretrainConfig, RlConfig, SftConfig, TokenizerConfig, parse_config, stage_name
from nanochat.sizes import flops_per_token


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """`batch_tokens` are those of a step, of all ranks together."""

    name: str
    kind: str
    num_ranks: int
    precision: str = "auto"
    model: GPTConfig | None = None
    sequence_len: int | None = None
    device_batch_size: int | None = None
    num_micro_steps: int | None = None
    batch_tokens: int | None = None
    num_steps: int | None = None

    @property
    def tokens(self) -> int | None:
        if self.batch_tokens is None or self.num_steps is None:
            return None
        return self.batch_tokens * self.num_steps

    @property
    def flops(self) -> int | None:
        """Of training alone, as MFU counts them: evaluation comes on top."""
        if self.model is None or self.tokens is None:
            return None
        return flops_per_token(self.model) * self.tokens

    def memory(self, compute_bytes: int) -> Memory | None:
        """Of a rank; compute_bytes where the config leaves the precision open."""
        if self.model is None or self.device_batch_size is None or self.sequence_len is None:
            return None
        given = {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 2}
        return estimate_memory(
            self.model,
            num_tokens=self.device_batch_size * self.sequence_len,
            num_ranks=self.num_ranks,
            compute_bytes=given.get(self.precision, compute_bytes),
        )


def plan_stages(jobs: Sequence[Job], vocab_size: Callable[[str], int], device_type: str = "cuda") -> list[StagePlan]:
    """One for each job, in order, those of a pipeline without the pipeline's own (JobStore.plan).

    `vocab_size` gives a tokenizer's that none of these jobs trains. Raises InvalidConfig naming the stage.
    """
    pipeline = next((job.name for job in jobs if job.kind == "pipeline"), "")
    plans: dict[str, StagePlan] = {}
    vocabularies: dict[str, int] = {}
    for job in jobs:
        if job.kind == "pipeline":
            continue
        name = stage_name(job.kind, job.name, pipeline)
        config = parse_config(job.kind, job.config)
        plan = StagePlan(name=name, kind=job.kind, num_ranks=job.num_processes)
        try:
            if isinstance(config, TokenizerConfig):
                vocabularies[job.id] = config.vocab_size
            elif isinstance(config, PretrainConfig):
                known = vocabularies.get(config.tokenizer)
                plan = _pretrain(plan, config, known or vocab_size(config.tokenizer), device_type)
            elif isinstance(config, SftConfig) and config.checkpoint in plans:
                plan = _sft(plan, config, plans[config.checkpoint], device_type)
            elif isinstance(config, RlConfig) and config.checkpoint in plans:
                plan = _rl(plan, config, plans[config.checkpoint], device_type)
        except InvalidConfig as exc:
            raise InvalidConfig(f"stage {name}: {exc.message}", param=exc.param) from exc
        plans[job.id] = plan
    return list(plans.values())


def _pretrain(plan: StagePlan, config: PretrainConfig, vocab_size: int, device_type: str) -> StagePlan:
    model = model_of(config, vocab_size)
    horizon = horizon_of(config, model, plan.num_ranks)
    plan = replace(
        plan,
        precision=config.precision,
        model=model,
        sequence_len=model.sequence_len,
        device_batch_size=config.device_batch_size,
        batch_tokens=horizon.batch_tokens,
        num_steps=horizon.num_steps,
    )
    return _cut(plan, device_type)


def _sft(plan: StagePlan, config: SftConfig, base: StagePlan, device_type: str) -> StagePlan:
    """What it does not say is its base's, as the recipe has it."""
    is_bases = config.total_batch_size is None and config.max_seq_len in (None, base.sequence_len)
    plan = replace(
        plan,
        precision=config.precision,
        model=base.model,
        sequence_len=config.max_seq_len or base.sequence_len,
        device_batch_size=config.device_batch_size or (base.device_batch_size if is_bases else None),
        batch_tokens=config.total_batch_size or base.batch_tokens,
        num_steps=config.num_iterations,
    )
    return _cut(plan, device_type)


def _rl(plan: StagePlan, config: RlConfig, base: StagePlan, device_type: str) -> StagePlan:
    """How many tokens a step has, the answers' lengths say; memory and micro-steps are those of the longest."""
    context = DEFAULT_SEQUENCE_LEN if base.model is None else base.model.sequence_len
    longest = min(context, config.max_prompt_tokens + config.max_new_tokens)
    rows = config.device_batch_size or DEFAULT_ROWS[device_type] * (context // longest)
    answers = config.examples_per_step * config.num_samples // plan.num_ranks
    return replace(
        plan,
        precision=config.precision,
        model=base.model,
        sequence_len=longest,
        device_batch_size=rows,
        num_micro_steps=math.ceil(answers / rows),
        num_steps=config.num_iterations,
    )


def _cut(plan: StagePlan, device_type: str) -> StagePlan:
    """With the rows that a rank computes at once, and how often it does in a step."""
    if plan.batch_tokens is None or plan.sequence_len is None:
        return plan
    rows = plan.device_batch_size or rows_at_once(
        plan.batch_tokens, plan.sequence_len, DEFAULT_ROWS[device_type], plan.num_ranks
    )
    num_micro = num_micro_steps(plan.batch_tokens, rows, plan.sequence_len, plan.num_ranks)
    return replace(plan, device_batch_size=rows, num_micro_steps=num_micro)
