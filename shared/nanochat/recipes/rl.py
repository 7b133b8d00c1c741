"""Reinforcement learning: improves a chat model on a task whose answers can be checked, by its own sampled answers."""

import logging
from dataclasses import replace
from pathlib import Path

from nanochat.checkpoint import store
from nanochat.checkpoint.store import Checkpoint
from nanochat.collectives import Peers
from nanochat.data.registry import datasets_dir
from nanochat.engine.generate import Engine
from nanochat.engine.params import SamplingParams
from nanochat.errors import InvalidConfig
from nanochat.evals.chat import score_generated
from nanochat.evals.pass_at_k import count_right, ks_of, pass_at_k
from nanochat.hardware import DEFAULT_ROWS
from nanochat.model.gpt import GPT
from nanochat.model.names import load_tensors
from nanochat.optim.groups import LearningRates, param_groups
from nanochat.optim.optimizer import MuonAdamW
from nanochat.optim.schedule import RlSchedule
from nanochat.protocol.jobs import RlConfig
from nanochat.recipes.conversations import describe_source
from nanochat.recipes.device import Device, choose_device
from nanochat.recipes.distributed import joined
from nanochat.recipes.job import JobContext, Outcome
from nanochat.recipes.loss_scale import LossScale
from nanochat.recipes.policy_gradient import PolicyGradient
from nanochat.recipes.rates import base_rates, scaled
from nanochat.recipes.resume import checkpoint_to_resume
from nanochat.recipes.rollouts import Questions, RolloutSampler
from nanochat.recipes.same_run import check_same_conversations, check_same_model, check_same_tokenizer
from nanochat.recipes.training_loop import Criterion, Evaluation, Training, train
from nanochat.tasks.base import Split, Task
from nanochat.tasks.loading import load
from nanochat.tasks.registry import CHECKABLE, TASKS
from nanochat.tools.calculator import Calculator

log = logging.getLogger(__name__)

STAGE = "rl"
_SPLITS: tuple[Split, Split] = ("train", "held_out")
# Of pretraining's rates these two are others; the value embeddings' stays what it is there.
_RATES = {"embedding_lr": 0.2, "unembedding_lr": 0.004}
_VALUE_EMBEDDING_LR = 0.15
# Answers side by side: more are hardly faster, on a CPU, and take memory for the whole length of each.
NUM_SLOTS = 128


def run(job: JobContext, config: RlConfig) -> Outcome:
    """The output is the last checkpoint's id. Raises NanochatError, Stopped."""
    train_task, held_out = (_task(config.task, split, datasets_dir(job.home)) for split in _SPLITS)
    train_task.prepare()
    device = choose_device(config.precision, local_rank=job.ranks.local_rank)
    with joined(job.ranks, device.device.type) as peers, Calculator() as calculator:
        job.stop.agree = peers.any
        return _train(job, config, train_task, held_out[: config.eval_examples], device, peers, calculator)


def _train(
    job: JobContext,
    config: RlConfig,
    task: Task,
    held_out: Task,
    device: Device,
    peers: Peers,
    calculator: Calculator,
) -> Outcome:
    base = store.load(job.checkpoint_folder(config.checkpoint))
    tokenizer = base.tokenizer
    max_len = _max_len(config, base, held_out)
    questions = Questions(
        task,
        tokenizer,
        per_step=config.examples_per_step,
        max_tokens=min(config.max_prompt_tokens, max_len - config.max_new_tokens),
        seed=config.seed,
        peers=peers,
    )
    num_steps = config.num_iterations or max(1, len(task) // config.examples_per_step)
    conversations = [describe_source(config.task, task)]
    run_name = config.run or job.spec.name
    saved = checkpoint_to_resume(
        job, run_name, STAGE, resume=config.resume, resume_from=config.resume_from, peers=peers
    )
    if saved is not None:
        check_same_model(saved, base.config)
        check_same_tokenizer(saved, tokenizer)
        check_same_conversations(saved, conversations)
    model = GPT(base.config, device.dtype).to(device.device)
    load_tensors(model, base.model_tensors)
    num_slots = config.rollout_batch_size or min(NUM_SLOTS, config.examples_per_step * config.num_samples)
    engine = Engine.of(model, tokenizer, calculator, num_slots=num_slots, max_len=max_len)
    params = SamplingParams(
        temperature=config.temperature,
        top_k=config.top_k,
        seed=config.seed,
        max_tokens=config.max_new_tokens,
        n=config.num_samples,
    )
    sampler = RolloutSampler(engine, task, questions, params, max_len=max_len, num_slots=num_slots)
    # As many tokens at a time as pretraining's rows have.
    rows = config.device_batch_size or DEFAULT_ROWS[device.device.type] * (base.config.sequence_len // max_len)
    training = Training(
        job=job,
        run=run_name,
        stage=STAGE,
        model=model,
        optimizer=MuonAdamW(param_groups(model, _rates(config)), device.matrix_dtype, peers),
        tokenizer=tokenizer,
        objective=PolicyGradient(model, sampler, rows, peers=peers, stop=job.stop),
        num_steps=num_steps,
        schedule=RlSchedule(num_steps=num_steps),
        evaluations=[_evaluation(job, config, engine, base, held_out, params, peers)],
        peers=peers,
        save_every=config.save_every,
        keep_last=config.keep_last,
        criterion=Criterion(metric=f"{config.task}_accuracy", is_higher_better=True),
        loss_scale=LossScale.of(device.dtype),
        origin={
            "job_id": job.spec.job_id,
            "base": base.info.id,
            "conversations": conversations,
            "config": config.model_dump(),
            # Of those that the model was pretrained with: whoever builds on this one asks for them.
            **{key: base.state.get(key) for key in ("dataset", "rates", "batch")},
        },
    )
    if saved is not None:
        training.resume(saved)
    return train(training)


def _task(name: str, split: Split, datasets: Path) -> Task:
    """Raises InvalidConfig for a task that is not known, or has no rewards; DataError for data that is not there."""
    if name in TASKS and name not in CHECKABLE:
        raise InvalidConfig(
            f"task {name!r} has no answers that can be checked, so it gives no reward; choose one of "
            f"{', '.join(CHECKABLE)}.",
            param="config.task",
        )
    return load(name, split, datasets)


def _max_len(config: RlConfig, base: Checkpoint, held_out: Task) -> int:
    """Tokens of the longest question with its answer. Raises InvalidConfig where the model's context is too short."""
    context = base.config.sequence_len
    answer = max(config.max_new_tokens, held_out.max_answer_tokens)
    if config.max_new_tokens >= context:
        raise InvalidConfig(
            f"max_new_tokens is {config.max_new_tokens}; the checkpoint's model takes {context} tokens, the question "
            "included. Give less.",
            param="config.max_new_tokens",
        )
    return min(context, config.max_prompt_tokens + answer)


def _rates(config: RlConfig) -> LearningRates:
    rates = base_rates(config, _RATES)
    if config.embedding_lr is None:
        rates = replace(rates, value_embedding_lr=_VALUE_EMBEDDING_LR)
    return scaled(rates, config.init_lr_frac)


def _evaluation(
    job: JobContext,
    config: RlConfig,
    engine: Engine,
    base: Checkpoint,
    held_out: Task,
    params: SamplingParams,
    peers: Peers,
) -> Evaluation:
    """Accuracy of greedy answers to held-out questions, and pass@k of sampled ones; ranks take turns with them."""
    share = held_out[peers.rank :: peers.world_size]
    total, name = len(held_out), config.task
    sampled = replace(params, n=max(1, config.eval_samples))
    ks = ks_of(config.eval_samples) if config.eval_samples else []

    def measure() -> dict[str, float]:
        right = score_generated(engine, base.tokenizer, share).num_right if len(share) else 0.0
        job.stop.check()
        counts = count_right(engine, base.tokenizer, share, sampled) if ks else []
        own = [sum(pass_at_k(sampled.n, count, k) for count in counts) for k in ks]
        right, *passed = peers.sum([right, *own])
        values = {f"{name}_accuracy": right / total}
        return values | {f"{name}_pass_at_{k}": value / total for k, value in zip(ks, passed, strict=True)}

    return Evaluation(measure=measure, every=config.eval_every, is_first=True)
