"""Draws one token a row from logits, vectorised over rows, and looks up log probabilities.

A row's draw depends on its logits, its params and its own uniform number alone, bit for bit, never on the rows beside
it: a seed gives the same text in any company. So every operation here works along one row, in an order that the number
of rows does not change. The uniform numbers come from sequence.py, changed logits from penalties.py and grammar.py.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from nanochat.engine.filters import candidates, keep
from nanochat.engine.params import MAX_LOGPROBS, SamplingParams

__all__ = ["SamplingParams", "TokenChoice", "lookup_logprobs", "sample"]

# Probabilities summed at once. A draw first picks a block by these sums and then a token in it, so that the exact,
# slow cumulative sum runs over V / 128 + 128 numbers instead of V.
_BLOCK = 128
# The smallest step of random.random().
_ULP = 2.0**-53


class TokenChoice(NamedTuple):
    """A token, its log probability before temperature and filters, and the likeliest tokens with theirs."""

    token_id: int
    logprob: float
    top: list[tuple[int, float]]


def sample(logits: Tensor, params: Sequence[SamplingParams], uniforms: Sequence[float]) -> list[int]:
    """Token ids (B,) from float32 logits (B, V) on any device. uniforms: a number in [0, 1) a row."""
    token_ids = [0] * len(params)
    ways = [_way(p) for p in params]
    for way, pick in {"greedy": _greedy, "all": _draw, "filtered": _draw_filtered}.items():
        rows = [row for row, found in enumerate(ways) if found == way]
        if len(rows) == len(params):
            return pick(logits, params, uniforms)
        if rows:
            picked = pick(logits[rows], [params[row] for row in rows], [uniforms[row] for row in rows])
            for row, token_id in zip(rows, picked, strict=True):
                token_ids[row] = token_id
    return token_ids


def _way(params: SamplingParams) -> str:
    if params.is_greedy:
        return "greedy"
    return "filtered" if params.top_k or params.top_p < 1 or params.min_p else "all"


def _greedy(logits: Tensor, params: Sequence[SamplingParams], uniforms: Sequence[float]) -> list[int]:
    """The first of the largest. In two levels, since argmax over V does not use wide registers."""
    blocks = _in_blocks(logits, -math.inf)
    block = blocks.amax(dim=-1).argmax(dim=-1, keepdim=True)
    return _tokens(block, _block_of(blocks, block).argmax(dim=-1, keepdim=True), logits)


def _draw(logits: Tensor, params: Sequence[SamplingParams], uniforms: Sequence[float]) -> list[int]:
    """Any token, by its probability at the row's temperature."""
    temperatures = torch.tensor([p.temperature for p in params], device=logits.device)[:, None]
    # The largest first becomes 0, so that dividing by a small temperature loses no digits.
    scaled = (logits - logits.amax(dim=-1, keepdim=True)).div_(temperatures)
    probs = _in_blocks(scaled.softmax(dim=-1), 0.0)  # (B, V) -> (B, V / _BLOCK, _BLOCK)
    sums = probs.sum(dim=-1)
    block, beyond = _pick(sums, _shares(uniforms, logits))
    # How far into its block the number lies, as a share of the block.
    share = beyond.div_(sums.gather(1, block)).neg_().add_(1.0).clamp_(min=_ULP)
    inner, _ = _pick(_block_of(probs, block), share)
    return _tokens(block, inner, logits)


def _draw_filtered(logits: Tensor, params: Sequence[SamplingParams], uniforms: Sequence[float]) -> list[int]:
    """One of the tokens that top_k, top_p and min_p leave."""
    found = candidates(logits, params)
    column, _ = _pick(found.weights, _shares(uniforms, logits))
    picked: list[list[int]] = torch.cat([found.ids.gather(1, column), found.is_wide], dim=1).tolist()
    token_ids = [token_id for token_id, _ in picked]
    wide = [row for row, (_, is_wide) in enumerate(picked) if is_wide]
    if wide:
        own = [params[row] for row in wide]
        for row, token_id in zip(
            wide, _draw(keep(logits[wide], own), own, [uniforms[row] for row in wide]), strict=True
        ):
            token_ids[row] = token_id
    return token_ids


def _shares(uniforms: Sequence[float], like: Tensor) -> Tensor:
    """(B, 1) in (0, 1]: the token in whose part of the cumulative sum it lies has a probability above 0."""
    return torch.tensor([u + _ULP for u in uniforms], dtype=torch.float64, device=like.device)[:, None]


def _pick(weights: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """The column (B, 1) of weights (B, K) in which a share (B, 1) of their sum ends, and how much lies beyond in it.

    The share is in (0, 1], so a weight of 0 is never picked.
    """
    # float64: float32 would be off by more than the rarest tokens.
    cumulative = weights.cumsum(dim=-1, dtype=torch.float64)
    target = cumulative[:, -1:] * share
    # clamp_: a row of NaN, from a broken model, must not end the batch.
    column = torch.searchsorted(cumulative, target).clamp_(max=weights.size(1) - 1)
    return column, cumulative.gather(1, column).sub_(target)


def _in_blocks(rows: Tensor, fill: float) -> Tensor:
    """(B, V) -> (B, ceil(V / _BLOCK), _BLOCK), the last block filled up."""
    missing = -rows.size(1) % _BLOCK
    return (F.pad(rows, (0, missing), value=fill) if missing else rows).view(rows.size(0), -1, _BLOCK)


def _block_of(blocks: Tensor, block: Tensor) -> Tensor:
    """Block (B, 1) of each row: (B, _BLOCK)."""
    return blocks.gather(1, block[:, :, None].expand(-1, 1, _BLOCK))[:, 0]


def _tokens(block: Tensor, inner: Tensor, logits: Tensor) -> list[int]:
    token_ids: list[int] = block.mul_(_BLOCK).add_(inner)[:, 0].tolist()
    last = logits.size(1) - 1  # a row of NaN may have ended in what fills the last block up
    return [min(token_id, last) for token_id in token_ids]


def lookup_logprobs(logits: Tensor, token_ids: Sequence[int], num_top: int) -> list[TokenChoice]:
    """What was given for token_ids (T,) by logits (T, V), and the num_top likeliest instead. Before temperature."""
    logprobs = logits.float().log_softmax(dim=-1)
    chosen = logprobs.gather(1, torch.tensor(token_ids, device=logits.device)[:, None])[:, 0].tolist()
    if not num_top:
        return [TokenChoice(token_id, logprob, []) for token_id, logprob in zip(token_ids, chosen, strict=True)]
    # Always as many: equally likely tokens then come in the same order whatever rows beside this one ask for.
    values, ids = logprobs.topk(min(MAX_LOGPROBS, logits.size(1)))
    return [
        TokenChoice(token_id, logprob, list(zip(top_ids[:num_top], top_values[:num_top], strict=True)))
        for token_id, logprob, top_ids, top_values in zip(token_ids, chosen, ids.tolist(), values.tolist(), strict=True)
    ]
