"""Gives each sequence of a step its next token."""

from collections.abc import Sequence as Seq

from torch import Tensor

from nanochat.engine.sampling import lookup_logprobs, sample
from nanochat.engine.sequence import Sequence


def append_sampled(sequences: Seq[Sequence], logits: Tensor) -> None:
    """Draw a token for each from logits (B, V), and append it."""
    uniforms = [sequence.next_uniform() for sequence in sequences]
    token_ids = sample(logits, [sequence.params for sequence in sequences], uniforms)
    for b, (sequence, token_id) in enumerate(zip(sequences, token_ids, strict=True)):
        logprob = None
        if sequence.params.logprobs is not None:
            (choice,) = lookup_logprobs(logits[b : b + 1], [token_id], sequence.params.logprobs)
            logprob = sequence.token_logprob(*choice)
        sequence.append(token_id, logprob)
