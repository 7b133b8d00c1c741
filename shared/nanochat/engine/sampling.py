"""Draws one token a row from logits, vectorised over rows, and looks up log probabilities.

A row's draw depends on its logits, its params and its own uniform number alone, never on the rows beside it: a seed
gives the same text in any company. The uniform numbers come from sequence.py.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nanochat.engine.params import MAX_TOP_K, SamplingParams

__all__ = ["SamplingParams", "TokenChoice", "lookup_logprobs", "sample"]


class TokenChoice(NamedTuple):
    """A token, its log probability before temperature and filters, and the likeliest tokens with theirs."""

    token_id: int
    logprob: float
    top: list[tuple[int, float]]


def sample(logits: Tensor, params: Sequence[SamplingParams], uniforms: Sequence[float]) -> list[int]:
    """Token ids (B,) from logits (B, V) on any device. uniforms: a number in [0, 1) a row."""
    token_ids = logits.argmax(dim=-1)  # (B, V) -> (B,); what rows at temperature 0 keep
    # Three ways to order the candidates. Each row takes the one that its own params call for, so that the
    # uniform number meets the same cumulative distribution in every batch.
    ways = {"all": _in_vocabulary_order, "top_k": _likeliest, "top_p": _sorted}
    for way, order in ways.items():
        rows = [row for row, p in enumerate(params) if _way(p) == way]
        if rows:
            values, ids = order(logits[rows])
            token_ids[rows] = _draw(values, ids, [params[row] for row in rows], [uniforms[row] for row in rows])
    found: list[int] = token_ids.tolist()
    return found


def _way(params: SamplingParams) -> str:
    if params.temperature == 0:
        return "greedy"
    if params.top_k:
        return "top_k"
    return "top_p" if params.top_p < 1 else "all"


def _in_vocabulary_order(logits: Tensor) -> tuple[Tensor, Tensor]:
    return logits, torch.arange(logits.size(1), device=logits.device).expand_as(logits)


def _likeliest(logits: Tensor) -> tuple[Tensor, Tensor]:
    # Always as many, whatever the rows' own top_k: equal logits then keep their order in every batch.
    values, ids = logits.topk(min(MAX_TOP_K, logits.size(1)))
    return values, ids


def _sorted(logits: Tensor) -> tuple[Tensor, Tensor]:
    values, ids = logits.sort(descending=True, stable=True)
    return values, ids


def _draw(values: Tensor, ids: Tensor, params: Sequence[SamplingParams], uniforms: Sequence[float]) -> Tensor:
    """One of ids (B, K) a row, by temperature, top_k and top_p over values (B, K); those two need them sorted."""

    def column(numbers: list[float]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.float64, device=values.device)[:, None]

    K = values.size(1)
    # float64: a cumulative sum of 32768 float32 probabilities is off by more than the rarest of them.
    scaled = values.double()
    # The largest first becomes 0, so that a temperature near 0 cannot overflow.
    scaled = (scaled - scaled.amax(dim=-1, keepdim=True)) / column([p.temperature for p in params])
    if any(p.top_k for p in params):
        ranks = torch.arange(K, device=values.device)
        scaled = scaled.masked_fill(ranks >= column([p.top_k or K for p in params]), float("-inf"))
    probs = scaled.softmax(dim=-1)
    if any(p.top_p < 1 for p in params):
        before = probs.cumsum(dim=-1) - probs  # what likelier tokens hold; the likeliest is always kept
        probs = probs.masked_fill(before >= column([p.top_p for p in params]), 0.0)
    cumulative = probs.cumsum(dim=-1)
    threshold = column(list(uniforms)) * cumulative[:, -1:]
    picked = torch.searchsorted(cumulative, threshold, right=True).clamp_(max=K - 1)
    return ids.gather(1, picked)[:, 0]


def lookup_logprobs(logits: Tensor, token_ids: Sequence[int], num_top: int) -> list[TokenChoice]:
    """What was given for token_ids (T,) by logits (T, V), and the num_top likeliest instead. Before temperature."""
    logprobs = logits.float().log_softmax(dim=-1)
    chosen = logprobs.gather(1, torch.tensor(token_ids, device=logits.device)[:, None])[:, 0].tolist()
    values, ids = logprobs.topk(min(num_top, logits.size(1)))
    return [
        TokenChoice(token_id, logprob, list(zip(top_ids, top_values, strict=True)))
        for token_id, logprob, top_ids, top_values in zip(token_ids, chosen, ids.tolist(), values.tolist(), strict=True)
    ]
