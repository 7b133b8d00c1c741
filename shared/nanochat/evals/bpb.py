"""Bits per byte: how well a model predicts text, comparable between vocabularies.

Total nats / (ln 2 x total bytes of the target tokens). Special tokens and ignored targets count in neither sum.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from nanochat.collectives import ALONE, Peers
from nanochat.data.loader import Batch
from nanochat.model.precision import float64_device
from nanochat.tokenizer.bpe import Tokenizer

# Loss of each position: (inputs (B, T), targets (B, T)) -> (B, T) float32, 0 where a target is ignored.
TokenLosses = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class BitsPerByte:
    """`stderr` is that of a ratio of two sums over rows, of which num_rows had bytes; 0 for one row."""

    value: float
    stderr: float
    num_rows: int


def token_byte_lengths(tokenizer: Tokenizer, device: torch.device) -> Tensor:
    """Bytes of each token, (V,) int64; 0 for special tokens."""
    return torch.tensor(tokenizer.token_byte_lengths(), dtype=torch.int64, device=device)


@torch.inference_mode()
def bits_per_byte(
    token_losses: TokenLosses, batches: Iterable[Batch], byte_lengths: Tensor, max_tokens: int, peers: Peers = ALONE
) -> BitsPerByte | None:
    """Over batches until `max_tokens` positions have been read or they end; None where no byte was counted.

    byte_lengths (V,) is on the model's device. Sums in float64, so that batches of any size give one number. Ranks read
    the same batches and take turns, so that any number of them gives the number of one. Raises PeerLost.
    """
    device = byte_lengths.device
    sums = torch.zeros(6, dtype=torch.float64)
    num_positions = 0
    for index, batch in enumerate(batches):
        if index % peers.world_size == peers.rank:
            inputs, targets = batch.to(device)
            losses = token_losses(inputs, targets)
            lengths = byte_lengths[targets.clamp(min=0)].masked_fill(targets < 0, 0)  # (B, T)
            counted = losses.masked_fill(lengths == 0, 0.0)
            nats = counted.to(float64_device(device)).double().sum(dim=1).cpu()  # (B, T) -> (B,)
            sums += _row_sums(nats, lengths.sum(dim=1).cpu().double())
        num_positions += batch.targets.numel()
        if num_positions >= max_tokens:
            break
    return _ratio(*peers.sum(sums.tolist()))


def _row_sums(nats: Tensor, num_bytes: Tensor) -> Tensor:
    """Of rows (B,): nats, bytes, their squares and product, and how many rows have bytes."""
    is_counted = (num_bytes > 0).double()
    return torch.stack([nats, num_bytes, nats**2, num_bytes**2, nats * num_bytes, is_counted]).sum(dim=1)


def _ratio(
    nats: float, num_bytes: float, nats2: float, bytes2: float, both: float, num_rows: float
) -> BitsPerByte | None:
    """nats / bytes and its error, by how far each row is from that ratio (W. G. Cochran, Sampling Techniques, 2.11)."""
    if not num_bytes:
        return None
    ratio = nats / num_bytes
    variance = max(0.0, nats2 - 2 * ratio * both + ratio**2 * bytes2) * num_rows / max(1.0, num_rows - 1)
    return BitsPerByte(
        value=ratio / math.log(2), stderr=math.sqrt(variance) / num_bytes / math.log(2), num_rows=int(num_rows)
    )
