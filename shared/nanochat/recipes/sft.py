"""Fine-tunes a checkpoint on conversations: tasks by name and files by path."""

import logging
import math
from dataclasses import replace
from typing import Any

from nanochat.checkpoint import store
from nanochat.checkpoint.store import Checkpoint
from nanochat.collectives import Peers
from nanochat.data.loader import conversation_loader, count_conversation_rows
from nanochat.data.registry import datasets_dir
from nanochat.errors import InvalidConfig
from nanochat.model.float8 import use_float8
from nanochat.model.gpt import GPT
from nanochat.model.names import load_tensors
from nanochat.optim.groups import param_groups
from nanochat.optim.horizon import REFERENCE_BATCH_TOKENS
from nanochat.optim.optimizer import MuonAdamW
from nanochat.optim.schedule import SftSchedule
from nanochat.protocol.jobs import SftConfig
from nanochat.recipes.batch import BatchSizes, check_sequence_len, cut_batch
from nanochat.recipes.conversations import Mixture, Render, build_mixture, renderer
from nanochat.recipes.device import Device, choose_device, compile_model
from nanochat.recipes.distributed import joined
from nanochat.recipes.job import JobContext, Outcome
from nanochat.recipes.loss_scale import LossScale
from nanochat.recipes.next_token import NextToken
from nanochat.recipes.rates import base_rates, saved_rates, scaled
from nanochat.recipes.resume import checkpoint_to_resume, conversation_state
from nanochat.recipes.same_run import check_same_conversations, check_same_model, check_same_tokenizer
from nanochat.recipes.training_loop import Evaluation, Training, train
from nanochat.recipes.validation import chat_task_names, chat_tasks, measure_bpb, measure_chat
from nanochat.tokenizer.bpe import Tokenizer

log = logging.getLogger(__name__)

STAGE = "sft"
_RATE_FACTOR = 0.8  # of the rates of pretraining
# A step of a base checkpoint that does not say what its own was.
_DEFAULT_BATCH_ROWS = 32


def run(job: JobContext, config: SftConfig) -> Outcome:
    """The output is the last checkpoint's id. Raises NanochatError, Stopped."""
    if config.weight_decay:
        raise InvalidConfig("fine-tuning has no weight decay; leave weight_decay out.", param="config.weight_decay")
    device = choose_device(config.precision, local_rank=job.ranks.local_rank)
    with joined(job.ranks, device.device.type) as peers:
        job.stop.agree = peers.any
        return _train(job, config, device, peers)


def _train(job: JobContext, config: SftConfig, device: Device, peers: Peers) -> Outcome:
    base = store.load(job.checkpoint_folder(config.checkpoint), with_optimizer=True)
    tokenizer = base.tokenizer
    sizes = _sizes(config, base, device, peers.world_size)
    mixture = build_mixture(config.mixture, datasets_dir(job.home))
    render = renderer(tokenizer, mixture.train)
    num_steps = config.num_iterations or _steps_of_one_pass(mixture, render, sizes)
    conversations = mixture.describe()
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
    rates = base_rates(config, base.state.get("rates"))
    factor = math.sqrt(sizes.tokens_per_step / REFERENCE_BATCH_TOKENS) if config.batch_lr_factor else 1.0
    groups = param_groups(model, replace(scaled(rates, _RATE_FACTOR), batch_factor=factor))
    optimizer = MuonAdamW(groups, device.matrix_dtype, peers)
    _warm_start(optimizer, base)
    loader = conversation_loader(
        len(mixture.train),
        render,
        batch_size=sizes.device_batch_size,
        sequence_len=sizes.sequence_len,
        rank=peers.rank,
        world_size=peers.world_size,
        state=conversation_state(saved, len(mixture.train), peers),
        device=device.device,
    )
    with loader:
        training = Training(
            job=job,
            run=run_name,
            stage=STAGE,
            model=model,
            optimizer=optimizer,
            tokenizer=tokenizer,
            objective=NextToken(model, loader, sizes, num_steps=num_steps, progress=job.progress, peers=peers),
            num_steps=num_steps,
            schedule=SftSchedule(num_steps=num_steps, final_lr_frac=config.final_lr_frac or 0.0),
            evaluations=_evaluations(job, config, model, tokenizer, mixture, sizes, peers),
            peers=peers,
            save_every=config.save_every,
            keep_last=config.keep_last,
            loss_scale=LossScale.of(device.dtype),
            origin={
                "job_id": job.spec.job_id,
                "base": base.info.id,
                "conversations": conversations,
                "dataset": base.state.get("dataset"),
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
        counts = loader.counts
        log.info("packing", extra={"num_truncated": counts.num_truncated, "num_padding": counts.num_padding})
    return outcome


def _sizes(config: SftConfig, base: Checkpoint, device: Device, num_ranks: int) -> BatchSizes:
    """The job's own, else those that the base was trained with, on however many ranks. Raises InvalidConfig."""
    saved: dict[str, Any] = base.state.get("batch") or {}
    sequence_len = config.max_seq_len or saved.get("sequence_len") or base.config.sequence_len
    check_sequence_len(sequence_len, base.config.sequence_len)
    is_same_length = sequence_len == saved.get("sequence_len")
    rows = config.device_batch_size
    if config.total_batch_size is not None:
        batch_tokens = config.total_batch_size
    elif is_same_length and rows in (None, saved.get("device_batch_size")):
        saved_sizes = BatchSizes(**saved)
        batch_tokens = saved_sizes.tokens_per_step
        if batch_tokens % (sequence_len * saved_sizes.device_batch_size * num_ranks) == 0:
            rows = saved_sizes.device_batch_size
    else:
        batch_tokens = sequence_len * (rows or _DEFAULT_BATCH_ROWS) * (num_ranks if rows else 1)
    return cut_batch(batch_tokens, sequence_len, rows, device=device.device, num_ranks=num_ranks)


def _steps_of_one_pass(mixture: Mixture, render: Render, sizes: BatchSizes) -> int:
    num_rows = count_conversation_rows(len(mixture.train), render, sizes.sequence_len)
    num_steps = -(-num_rows // sizes.rows_per_step)
    log.info("one_pass", extra={"num_conversations": len(mixture.train), "num_rows": num_rows, "num_steps": num_steps})
    return num_steps


def _warm_start(optimizer: MuonAdamW, base: Checkpoint) -> None:
    """Momenta go on from the base's, so that the first steps do not jump. A base without them starts cold."""
    if base.optimizer_tensors is None:
        log.info("optimizer_starts_cold", extra={"checkpoint": base.info.id})
    else:
        optimizer.load_state_tensors(base.optimizer_tensors)


def _evaluations(
    job: JobContext,
    config: SftConfig,
    model: GPT,
    tokenizer: Tokenizer,
    mixture: Mixture,
    sizes: BatchSizes,
    peers: Peers,
) -> list[Evaluation]:
    """val_bpb of what the assistant says in conversations that are not trained on, if any were kept; chat tasks where
    the job asks for them."""

    def bpb() -> dict[str, float]:
        loader = conversation_loader(
            len(mixture.validation),
            renderer(tokenizer, mixture.validation),
            batch_size=sizes.device_batch_size,
            sequence_len=sizes.sequence_len,
            num_epochs=1,
        )
        return measure_bpb(model, tokenizer, loader, config.eval_tokens, job.stop, peers)

    evaluations = []
    if len(mixture.validation):
        evaluations.append(Evaluation(measure=bpb, every=config.eval_every))
    if config.chatcore_every:
        # What it would lack at the end is said before the first step.
        tasks = chat_tasks(chat_task_names(config.chatcore_tasks), job.home, config.chatcore_max_per_task)

        def report(num_done: int, total: int) -> None:
            if peers.is_alone:  # a check is one that all ranks come to, and their shares differ
                job.stop.check()

        def chat() -> dict[str, float]:
            return measure_chat(model, tokenizer, tasks, on_progress=report, peers=peers)

        evaluations.append(Evaluation(measure=chat, every=config.chatcore_every))
    return evaluations
