"""Trains a base model from nothing on a dataset's text."""

import logging
from dataclasses import replace

import torch

from nanochat.collectives import Peers
from nanochat.config import GPTConfig
from nanochat.data.loader import training_loader, validation_loader
from nanochat.data.registry import Dataset
from nanochat.data.shards import Shards
from nanochat.model.float8 import use_float8
from nanochat.model.gpt import GPT
from nanochat.model.init import init_weights
from nanochat.optim.groups import param_groups
from nanochat.optim.optimizer import MuonAdamW
from nanochat.optim.schedule import PretrainSchedule
from nanochat.planning.pretraining import horizon_of, model_of
from nanochat.protocol.jobs import PretrainConfig
from nanochat.recipes.batch import cut_batch
from nanochat.recipes.device import Device, choose_device, compile_model
from nanochat.recipes.distributed import joined
from nanochat.recipes.job import JobContext, Outcome
from nanochat.recipes.loss_scale import LossScale
from nanochat.recipes.next_token import NextToken
from nanochat.recipes.rates import base_rates, saved_rates
from nanochat.recipes.resume import checkpoint_to_resume, text_state
from nanochat.recipes.same_run import check_same_model, check_same_tokenizer
from nanochat.recipes.training_loop import Evaluation, Training, train
from nanochat.recipes.validation import core_tasks_present, measure_bpb, measure_core, write_samples
from nanochat.tokenizer.bpe import Tokenizer

log = logging.getLogger(__name__)

STAGE = "pretrain"
_DEFAULT_FINAL_LR_FRAC = 0.05
_CORE_EXAMPLES = 500  # a task, while training


def run(job: JobContext, config: PretrainConfig) -> Outcome:
    """The output is the last checkpoint's id. Raises NanochatError, Stopped."""
    device = choose_device(config.precision, local_rank=job.ranks.local_rank)
    with joined(job.ranks, device.device.type) as peers:
        job.stop.agree = peers.any
        return _train(job, config, device, peers)


def _train(job: JobContext, config: PretrainConfig, device: Device, peers: Peers) -> Outcome:
    dataset = job.dataset(config.dataset)
    tokenizer = job.tokenizer(config.tokenizer)
    model_config = model_of(config, tokenizer.vocab_size)
    horizon = horizon_of(config, model_config, peers.world_size)
    log.info("horizon", extra=vars(horizon))
    sizes = cut_batch(
        horizon.batch_tokens,
        model_config.sequence_len,
        config.device_batch_size,
        device=device.device,
        num_ranks=peers.world_size,
    )
    with Shards(dataset.folder) as shards:
        shards.require_row_groups(peers.world_size)
        shards.check_footers()  # a run may be hours from the shard that it could not read
    run_name = config.run or job.spec.name
    saved = checkpoint_to_resume(
        job, run_name, STAGE, resume=config.resume, resume_from=config.resume_from, peers=peers
    )
    if saved is not None:
        check_same_model(saved, model_config)
        check_same_tokenizer(saved, tokenizer)
    model = _new_model(model_config, device, config.seed)
    rates = base_rates(config)
    batch_factor = horizon.lr_factor if config.batch_lr_factor is not False else 1.0
    rates_of_run = replace(rates, batch_factor=batch_factor, weight_decay=horizon.weight_decay)
    groups = param_groups(model, rates_of_run, light_muon=config.muon == "light")
    loader = training_loader(
        dataset.folder,
        tokenizer,
        batch_size=sizes.device_batch_size,
        sequence_len=sizes.sequence_len,
        rank=peers.rank,
        world_size=peers.world_size,
        state=text_state(saved, peers),
        device=device.device,
    )
    with loader:
        training = Training(
            job=job,
            run=run_name,
            stage=STAGE,
            model=model,
            optimizer=MuonAdamW(groups, device.matrix_dtype, peers),
            tokenizer=tokenizer,
            objective=NextToken(model, loader, sizes, num_steps=horizon.num_steps, progress=job.progress, peers=peers),
            num_steps=horizon.num_steps,
            schedule=_schedule(config, horizon.num_steps),
            evaluations=_evaluations(job, config, model, tokenizer, dataset, sizes.device_batch_size, peers),
            peers=peers,
            save_every=config.save_every,
            keep_last=config.keep_last,
            loss_scale=LossScale.of(device.dtype),
            origin={
                "job_id": job.spec.job_id,
                "dataset": config.dataset,
                "rates": saved_rates(rates),
                "batch": vars(sizes),
                "config": config.model_dump(),
            },
        )
        if saved is not None:
            training.resume(saved)
        if device.uses_float8:
            use_float8(model, sizes.device_batch_size * sizes.sequence_len)
        compile_model(model, config.compile, device)
        outcome = train(training)
        log.info("packing", extra={"discarded_ratio": round(loader.counts.discarded_ratio, 4), "epoch": loader.epoch})
    return outcome


def _new_model(config: GPTConfig, device: Device, seed: int) -> GPT:
    model = GPT(config, device.dtype)
    init_weights(model, torch.Generator().manual_seed(seed))
    log.info("model_made", extra={"num_parameters": model.num_parameters(), **config.to_dict()})
    return model.to(device.device)


def _schedule(config: PretrainConfig, num_steps: int) -> PretrainSchedule:
    return PretrainSchedule(
        num_steps=num_steps,
        warmup_steps=config.warmup_steps,
        warmdown_ratio=config.warmdown_ratio,
        final_lr_frac=_DEFAULT_FINAL_LR_FRAC if config.final_lr_frac is None else config.final_lr_frac,
    )


def _evaluations(
    job: JobContext,
    config: PretrainConfig,
    model: GPT,
    tokenizer: Tokenizer,
    dataset: Dataset,
    batch_size: int,
    peers: Peers,
) -> list[Evaluation]:
    """Validation text always; CORE and samples where the job asks for them."""

    def bpb() -> dict[str, float]:
        sequence_len = model.config.sequence_len
        loader = validation_loader(dataset.folder, tokenizer, batch_size=batch_size, sequence_len=sequence_len)
        return measure_bpb(model, tokenizer, loader, config.eval_tokens, job.stop, peers)

    def core() -> dict[str, float]:
        return measure_core(
            model,
            tokenizer,
            job.home,
            labels=None,
            max_per_task=_CORE_EXAMPLES,
            on_progress=lambda done, total: job.stop.check(),
            peers=peers,
        )

    def samples() -> dict[str, float]:
        return write_samples(job.progress, model, tokenizer, as_chat=False, peers=peers)

    evaluations = [Evaluation(measure=bpb, every=config.eval_every)]
    if config.core_metric_every:
        core_tasks_present(job.home)  # what it would lack at the end is said before the first step
        evaluations.append(Evaluation(measure=core, every=config.core_metric_every))
    if config.sample_every:
        evaluations.append(Evaluation(measure=samples, every=config.sample_every))
    return evaluations
