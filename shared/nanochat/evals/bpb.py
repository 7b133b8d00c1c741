"""Bits per byte: how well a model predicts text, comparable between vocabularies.

Total nats / (ln 2 x total bytes of the target tokens). Special tokens and ignored targets count in neither sum.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from nanochat.collectives import ALONE, Peers
from nanochat.data.loader import Batch
from nanochat.model.precision import float64_device
from nanochat.tokenizer.bpe import Tokenizer

# Loss of each position: (inputs (B, T), targets (B, T)) -> (B, T) float32, 0 where a target is ignored.
TokenLosses = Callable[[Tensor, Tensor], Tensor]


def token_byte_lengths(tokenizer: Tokenizer, device: torch.device) -> Tensor:
    """Bytes of each token, (V,) int64; 0 for special tokens."""
    return torch.tensor(tokenizer.token_byte_lengths(), dtype=torch.int64, device=device)


@torch.inference_mode()
def bits_per_byte(
    token_losses: TokenLosses, batches: Iterable[Batch], byte_lengths: Tensor, max_tokens: int, peers: Peers = ALONE
) -> float | None:
    """Over batches until `max_tokens` positions have been read or they end; None where no byte was counted.

    byte_lengths (V,) is on the model's device. Sums in float64, so that batches of any size give one number. Ranks read
    the same batches and take turns, so that any number of them gives the number of one. Raises PeerLost.
    """
    device = byte_lengths.device
    nats = torch.zeros((), dtype=torch.float64)
    num_bytes = 0
    num_positions = 0
    for index, batch in enumerate(batches):
        if index % peers.world_size == peers.rank:
            inputs, targets = batch.to(device)
            losses = token_losses(inputs, targets)
            lengths = byte_lengths[targets.clamp(min=0)].masked_fill(targets < 0, 0)  # (B, T)
            counted = losses.masked_fill(lengths == 0, 0.0)
            nats += counted.to(float64_device(device)).double().sum().cpu()
            num_bytes += int(lengths.sum())
        num_positions += batch.targets.numel()
        if num_positions >= max_tokens:
            break
    total_nats, total_bytes = peers.sum([float(nats), num_bytes])
    return total_nats / (math.log(2) * total_bytes) if total_bytes else None
