"""top_k, top_p and min_p: which tokens of a row may be drawn, and how likely each is.

The filters keep the likeliest tokens and no others, so a row's largest logits are enough, unless top_p or min_p alone
keep more of them than are looked at: rows for which that is so are sorted as a whole. What happens to a row depends on
its own logits and params only.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nanochat.engine.params import MAX_TOP_K, SamplingParams


class Candidates(NamedTuple):
    """The likeliest tokens: ids (B, K) and weights (B, K) in float64, 0 for those that a filter takes away.

    `is_wide` (B, 1): more tokens are kept than these; ask `keep` for such rows.
    """

    ids: Tensor
    weights: Tensor
    is_wide: Tensor


def candidates(logits: Tensor, params: Sequence[SamplingParams]) -> Candidates:
    """For float32 logits (B, V), each row with a filter."""
    V = logits.size(1)
    # Always as many, whatever the rows' own top_k: equal logits then keep their order in every batch.
    values, ids = logits.topk(min(MAX_TOP_K, V))  # (B, V) -> (B, K)
    temperature = _column(lambda p: p.temperature, params, logits)
    total = None
    if any(not p.top_k and p.top_p < 1 for p in params):
        total = _total(logits, temperature)
    weights, is_kept = _weigh(values, temperature, total, params)
    is_wide = is_kept[:, -1:] & (_column(lambda p: p.top_k, params, logits) == 0) & (values.size(1) < V)
    return Candidates(ids, weights * is_kept, is_wide)


def keep(logits: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """Logits (B, V) with -inf for what the filters take away. Of equal ones the lower ids stay."""
    ordered = _sorted(logits)
    _, is_kept = _weigh(ordered, _column(lambda p: p.temperature, params, logits), None, params)
    num_kept = is_kept.sum(dim=-1, keepdim=True)
    lowest = ordered.gather(1, num_kept - 1)
    result = torch.where(logits < lowest, -math.inf, logits)
    surplus: list[int] = ((logits >= lowest).sum(dim=-1, keepdim=True) - num_kept)[:, 0].tolist()
    for row, num in enumerate(surplus):
        if num:
            result[row, (logits[row] == lowest[row]).nonzero()[-num:, 0]] = -math.inf
    return result


def _weigh(
    values: Tensor, temperature: Tensor, total: Tensor | None, params: Sequence[SamplingParams]
) -> tuple[Tensor, Tensor]:
    """Weights relative to the largest of `values` (B, K), sorted, and which of them the filters keep.

    `total` (B, 1) is the weight of a row's whole vocabulary, where that is more than `values`.
    """
    K = values.size(1)
    weights = values.double().sub_(values[:, :1]).div_(temperature).exp_()
    top_k = _column(lambda p: p.top_k or math.inf, params, values)
    is_ranked = torch.arange(K, device=values.device) < top_k
    weights.mul_(is_ranked)
    cumulative = weights.cumsum(dim=-1)
    own_total = cumulative[:, -1:]
    total = own_total if total is None else torch.where(top_k < math.inf, own_total, total)
    # What likelier tokens hold. The likeliest is always kept, and each condition holds for a first part of the row.
    before = cumulative - weights
    is_in_nucleus = before < total * _column(lambda p: p.top_p, params, values)
    is_kept = is_ranked & is_in_nucleus & (weights >= _column(lambda p: p.min_p, params, values))
    return weights, is_kept


def _total(logits: Tensor, temperature: Tensor) -> Tensor:
    """The sum (B, 1) of all tokens' weights relative to the likeliest one's."""
    scaled = (logits - logits.amax(dim=-1, keepdim=True)).div_(temperature)
    return scaled.softmax(dim=-1).amax(dim=-1, keepdim=True).double().reciprocal_()


def _sorted(logits: Tensor) -> Tensor:
    if logits.device.type != "cpu":
        return logits.sort(descending=True).values
    return torch.from_numpy(np.sort(logits.numpy(), axis=1)[:, ::-1].copy())  # four times as fast as torch's


def _column(number_of: Callable[[SamplingParams], float], params: Sequence[SamplingParams], like: Tensor) -> Tensor:
    """A number of each row's params as (B, 1)."""
    return torch.tensor([number_of(p) for p in params], dtype=torch.float64, device=like.device)[:, None]
