"""How many tokens the next step may compute, so that prompts come in without holding up those who read along.

A step that takes in a part of a prompt is longer than one that only decodes. How much longer per token, and how long
those are, is learnt from the steps themselves, on whatever machine and model. Of several prompts the shortest comes
first, so that a short question does not wait behind a long document; a quarter is for whoever has waited longest, so
that the document comes in too. Knows nothing of rows or tensors: the capacity's simulation goes by the same rules.
"""

from collections.abc import Sequence

# Of a step that has prompts: less would make a long one take for ever on a busy server.
MIN_PROMPT_TOKENS = 16
_OLDEST_SHARE = 4
# What a prompt may add to a decoding step, of that step's own time: readers then wait twice as long for a token as
# usual, which leaves room below the three times that are promised.
MAX_ADDED_RATIO = 1.0
# Before anything is known.
_FIRST_PROMPT_TOKENS = 64
# Weight of the newest step.
_NEWEST = 0.2


class Pace:
    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._decode_s: float | None = None  # of a step that only decodes
        self._token_s: float | None = None  # of a prompt's token

    def budget(self, num_decoding: int) -> int:
        """Tokens of the next step, given how many of its rows decode."""
        if not num_decoding:
            return self._max_tokens
        allowed = _FIRST_PROMPT_TOKENS
        if self._decode_s is not None and self._token_s is not None:
            allowed = int(MAX_ADDED_RATIO * self._decode_s / self._token_s)
        return num_decoding + min(max(allowed, MIN_PROMPT_TOKENS), self._max_tokens)

    def observe(self, step_s: float, num_decoding: int, num_prompt_tokens: int) -> None:
        """What a step took."""
        if not num_prompt_tokens:
            self._decode_s = _mean(self._decode_s, step_s)
        elif not num_decoding:
            self._token_s = _mean(self._token_s, step_s / num_prompt_tokens)
        elif self._decode_s is not None:
            self._token_s = _mean(self._token_s, max(step_s - self._decode_s, 1e-7) / num_prompt_tokens)


def _mean(old: float | None, new: float) -> float:
    return new if old is None else (1 - _NEWEST) * old + _NEWEST * new


def share(lengths: Sequence[int], budget: int, max_chunk: int) -> list[int]:
    """How many tokens of prompts of these lengths, the oldest first, are computed within a budget of at least 1."""
    if not lengths:
        return []
    counts = [0] * len(lengths)
    counts[0] = min(lengths[0], max_chunk, max(1, budget // _OLDEST_SHARE))
    budget -= counts[0]
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        given = min(lengths[i], max_chunk) - counts[i]
        counts[i] += min(given, budget)
        budget -= min(given, budget)
    return counts
