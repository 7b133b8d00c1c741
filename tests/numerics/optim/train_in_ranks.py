"""What torchrun starts for test_ranks.py: a small model, trained for some steps on this rank's rows of every batch.

    torchrun ... train_in_ranks.py FOLDER cpu|cuda

Each rank has a GPU of its own on cuda, where they speak by NCCL. Leaves weights_<rank>.safetensors and
rank_<rank>.safetensors with what the rank holds of the optimizer's state; which rows these are is in the file's
metadata.
"""

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from nanochat.collectives import Peers
from nanochat.config import GPTConfig
from nanochat.model.gpt import GPT
from nanochat.model.init import init_weights
from nanochat.model.names import named_tensors
from nanochat.optim.groups import LearningRates, param_groups
from nanochat.optim.optimizer import MuonAdamW
from nanochat.optim.schedule import PretrainSchedule, apply_schedule
from nanochat.recipes.distributed import _BACKENDS as BACKENDS

# Stacks of 2, 3 and 6 matrices, 2 value embeddings; 128 rows of vocabulary; lambdas of 3.
CONFIG = GPTConfig(sequence_len=32, vocab_size=100, n_layer=3, n_head=2, n_kv_head=1, n_embd=32)
NUM_STEPS = 20
BATCH_ROWS = 6
RATES = LearningRates(weight_decay=0.1, batch_factor=0.02, gate_lr=0.004)


def run(peers: Peers, num_steps: int = NUM_STEPS, device: str = "cpu") -> tuple[GPT, MuonAdamW]:
    model = GPT(CONFIG)
    generator = torch.Generator().manual_seed(0)
    init_weights(model, generator)
    for tensor in named_tensors(model).values():
        if not tensor.any():  # AdamW takes gradients of nothing but rounding, behind such weights, for a direction
            tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
    model = model.to(device)
    optimizer = MuonAdamW(param_groups(model, RATES), peers=peers)
    schedule = PretrainSchedule(num_steps=NUM_STEPS, warmup_steps=2)
    for step in range(num_steps):
        batch = torch.randint(CONFIG.vocab_size, (BATCH_ROWS, 33), generator=torch.Generator().manual_seed(step))
        rows = batch[peers.rank :: peers.world_size].to(device)
        apply_schedule(schedule, optimizer.groups, step)
        model(rows[:, :-1], rows[:, 1:]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def main(folder: Path, device: str) -> None:
    torch.set_num_threads(1)
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group(BACKENDS[device])
    peers = Peers(rank=dist.get_rank(), world_size=dist.get_world_size())
    model, optimizer = run(peers, device=device)
    state = optimizer.state()
    rows = {name: json.dumps([m.start, *m.shape]) for name, m in state.items() if m.is_split}
    held = sum(m.tensor.nbytes for part in optimizer._parts for _, m in part.moments())
    save_file(
        {name: moment.tensor.contiguous().clone() for name, moment in state.items()},
        folder / f"rank_{peers.rank}.safetensors",
        metadata={**rows, "bytes": str(held)},
    )
    weights = {name: tensor.contiguous() for name, tensor in named_tensors(model).items()}
    save_file(weights, folder / f"weights_{peers.rank}.safetensors")
    dist.destroy_process_group()


if __name__ == "__main__":
    assert "RANK" in os.environ, "start me with torchrun"
    main(Path(sys.argv[1]), sys.argv[2])
