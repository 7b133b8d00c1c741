"""One step of the model: every row that can run gets its pending tokens computed and one new token sampled.

Shared by the offline loop (generate.py) and the inference service. Which rows run, and in which slots, is theirs.
"""

from collections.abc import Sequence as Seq

import torch
from torch import Tensor

from nanochat.engine.choosing import append_sampled
from nanochat.engine.sampling import lookup_logprobs
from nanochat.engine.slots import Row
from nanochat.model.gpt import GPT
from nanochat.model.kv_cache import KVCache
from nanochat.protocol.generate import TokenLogprob

# Padded tokens in one forward of prompts: bounds the memory that activations take.
MAX_PREFILL_TOKENS = 4096
# Prompt tokens scored at once: (256, V) float32 logits are 32 MiB at V = 32768.
_SCORED_CHUNK = 256


@torch.inference_mode()
def run_step(model: GPT, cache: KVCache, rows: Seq[Row]) -> None:
    """Advance every row by one sampled token. Rows are in distinct slots, have pending tokens and wait for no tool."""
    logits: dict[Row, Tensor] = {}
    own = [row for row in rows if row.fork_of is None]
    for row in own:
        _clear(cache, row)
    long = sorted((row for row in own if len(row.sequence.pending) > 1), key=lambda row: len(row.sequence.pending))
    # Rows in the order of their slots let the model read the cache without copying it.
    short = sorted((row for row in own if len(row.sequence.pending) == 1), key=lambda row: row.slot)
    for group in [*_prefill_groups(long), *([short] if short else [])]:
        logits.update(zip(group, _forward(model, cache, group), strict=True))
    for row in rows:
        if row.fork_of is not None:
            cache.copy_slot(row.fork_of.slot, row.slot)
            logits[row] = logits[row.fork_of]
            row.is_fresh, row.fork_of = False, None
    append_sampled([row.sequence for row in rows], torch.stack([logits[row] for row in rows]))  # (B, V)


@torch.inference_mode()
def score_prompt(model: GPT, cache: KVCache, row: Row) -> list[TokenLogprob | None]:
    """Log probability of every prompt token, None for the first. Leaves the row with its last prompt token pending."""
    sequence = row.sequence
    num_top = sequence.params.logprobs or 0
    ids = sequence.prompt_ids
    _clear(cache, row)
    scored: list[TokenLogprob | None] = [None]
    for start in range(0, len(ids) - 1, _SCORED_CHUNK):
        targets = ids[start + 1 : start + 1 + _SCORED_CHUNK]
        chunk = torch.tensor([ids[start : start + len(targets)]], device=model.device)
        logits = model.forward_cached(
            chunk, cache, torch.tensor([row.slot]), torch.tensor([len(targets)]), all_logits=True
        )
        scored += [sequence.token_logprob(*choice) for choice in lookup_logprobs(logits[0], targets, num_top)]
    sequence.pending = ids[-1:]
    return scored


def _clear(cache: KVCache, row: Row) -> None:
    if row.is_fresh:
        cache.reset(row.slot)
        row.is_fresh = False


def _prefill_groups(rows: list[Row]) -> list[list[Row]]:
    """Split rows, shortest first, so that no group's padded size exceeds MAX_PREFILL_TOKENS, unless one row does."""
    groups: list[list[Row]] = []
    for row in rows:
        if groups and (len(groups[-1]) + 1) * len(row.sequence.pending) <= MAX_PREFILL_TOKENS:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def _forward(model: GPT, cache: KVCache, rows: Seq[Row]) -> Tensor:
    """Logits (B, V) after the pending tokens of each row."""
    num_new = [len(row.sequence.pending) for row in rows]
    T = max(num_new)
    token_ids = torch.tensor(
        [row.sequence.pending + [0] * (T - n) for row, n in zip(rows, num_new, strict=True)], device=model.device
    )
    return model.forward_cached(token_ids, cache, torch.tensor([row.slot for row in rows]), torch.tensor(num_new))
