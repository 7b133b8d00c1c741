"""A run of a tiny model on random rows, whose loss can be spoiled, and the lines that it writes."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from nanochat.config import GPTConfig
from nanochat.data.loader import Batch, Loader
from nanochat.model.gpt import GPT
from nanochat.model.init import init_weights
from nanochat.model.names import named_tensors
from nanochat.optim.groups import param_groups
from nanochat.optim.optimizer import MuonAdamW
from nanochat.optim.schedule import SftSchedule
from nanochat.protocol.progress import progress_line
from nanochat.recipes.batch import BatchSizes
from nanochat.recipes.job import JobContext, progress_path
from nanochat.recipes.next_token import NextToken
from nanochat.recipes.training_loop import Training
from nanochat.tokenizer.bpe import Tokenizer

T = 16


class Batches:
    """A loader of random rows whose n-th batch is always the same; some targets are ignored."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.num_given = 0

    def __next__(self) -> Batch:
        generator = torch.Generator().manual_seed(self.num_given)
        self.num_given += 1
        ids = torch.randint(0, 256, (self.batch_size, T + 1), generator=generator)
        targets = ids[:, 1:].clone()
        targets[0, : 3 + self.num_given % 5] = -1
        return Batch(ids[:, :-1].contiguous(), targets, {})

    def state(self) -> dict[str, Any]:
        return {"num_given": self.num_given}


class Poisoned(GPT):
    """Its loss is not a number where `is_bad(n)` for the n-th forward."""

    is_bad: Callable[[int], bool] = staticmethod(lambda n: False)
    num_forwards = 0

    def forward(self, token_ids: Tensor, targets: Tensor | None = None, reduction: str = "mean") -> Tensor:
        self.num_forwards += 1
        loss = super().forward(token_ids, targets, reduction)
        return loss * float("nan") if self.is_bad(self.num_forwards - 1) else loss


def tiny_training(
    job: JobContext,
    tokenizer: Tokenizer,
    *,
    rows: int = 4,
    micro_steps: int = 1,
    num_steps: int = 4,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    **values: Any,
) -> Training:
    config = GPTConfig(
        sequence_len=T,
        vocab_size=tokenizer.vocab_size,
        n_layer=2,
        n_head=1,
        n_kv_head=1,
        n_embd=32,
        window_pattern="L",
    )
    model = Poisoned(config, dtype)
    init_weights(model, torch.Generator().manual_seed(0))
    model = model.to(device)
    sizes = BatchSizes(sequence_len=T, device_batch_size=rows, num_micro_steps=micro_steps)
    settings: dict[str, Any] = {"evaluations": [], "save_every": 0, "origin": {"job_id": "job_1"}, **values}
    return Training(
        job=job,
        run="one",
        stage="sft",
        model=model,
        optimizer=MuonAdamW(param_groups(model)),
        tokenizer=tokenizer,
        objective=NextToken(model, cast(Loader, Batches(rows)), sizes, num_steps=num_steps, progress=job.progress),
        num_steps=num_steps,
        schedule=SftSchedule(num_steps=num_steps),
        **settings,
    )


def lines(job: JobContext) -> list[Any]:
    return [progress_line.validate_json(line) for line in progress_path(job.spec).read_text().splitlines()]


def weights(training: Training) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in named_tensors(training.model).items()}
