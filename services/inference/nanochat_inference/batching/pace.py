"""How many tokens the next step may compute, so that prompts come in without holding up those who read along.

A step that takes in a part of a prompt is longer than one that only decodes. How much longer per token, and how long
those are, is learnt from the steps themselves, on whatever machine and model. Knows nothing of rows or tensors.
"""

# What a prompt may add to a decoding step, of that step's own time: readers then wait at most 2.2 times as long for a
# token as usual, which leaves room below the three times that are promised.
MAX_ADDED_RATIO = 1.2
MIN_PROMPT_TOKENS = 16
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
