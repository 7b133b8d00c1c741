"""Chooses the next token of every row of a batch and appends it: the end of a step, wherever its logits come from."""

from collections.abc import Sequence as Seq

from torch import Tensor

from nanochat.engine.grammar import constrained
from nanochat.engine.penalties import penalised
from nanochat.engine.sampling import lookup_logprobs, sample
from nanochat.engine.sequence import Sequence
from nanochat.model.precision import float64_device
from nanochat.protocol.generate import TokenLogprob


def append_sampled(sequences: Seq[Sequence], logits: Tensor) -> None:
    """Append a token to each sequence, by its params, from float32 logits (B, V), which stay as they are."""
    if not sequences:
        return
    logits = logits.to(float64_device(logits.device))
    changed = penalised(logits, [sequence.penalties for sequence in sequences])
    changed = constrained(changed, [sequence.grammar for sequence in sequences])
    uniforms = [sequence.next_uniform() for sequence in sequences]
    token_ids = sample(changed, [sequence.params for sequence in sequences], uniforms)
    logprobs = _logprobs(sequences, logits, token_ids)
    for row, (sequence, token_id) in enumerate(zip(sequences, token_ids, strict=True)):
        sequence.append(token_id, logprobs.get(row))


def _logprobs(sequences: Seq[Sequence], logits: Tensor, token_ids: Seq[int]) -> dict[int, TokenLogprob]:
    """Of the rows that ask for them."""
    wanted = {row: s.params.logprobs for row, s in enumerate(sequences) if s.params.logprobs is not None}
    if not wanted:
        return {}
    rows = list(wanted)
    own = logits if len(rows) == len(sequences) else logits[rows]
    choices = lookup_logprobs(own, [token_ids[row] for row in rows], max(wanted.values()))
    return {
        row: sequences[row].token_logprob(choice.token_id, choice.logprob, choice.top[: wanted[row]])
        for row, choice in zip(rows, choices, strict=True)
    }
