"""How many tokens the next step may compute, so that prompts come in without holding up those who read along.

A step that takes in a part of a prompt is longer than one that only decodes. How much longer per token, and how long
those are by their rows, is learnt from the steps themselves, on whatever machine and model. Of several prompts the
shortest comes first, so that a short question does not wait behind a long document; a quarter is for whoever has waited
longest, so that the document comes in too. Knows nothing of rows or tensors: the capacity's simulation goes by the same
rules.
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
# The first steps also fetch memory and wake threads: of so many the fastest counts.
_NUM_FIRST = 4


class Pace:
    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._decode_s = _Line()  # of a step that only decodes, by its rows
        self._token_s = _Mean()  # of a prompt's token

    def budget(self, num_decoding: int) -> int:
        """Tokens of the next step, given how many of its rows decode."""
        if not num_decoding:
            return self._max_tokens
        allowed = _FIRST_PROMPT_TOKENS
        if self._decode_s.is_known and self._token_s.is_known:
            allowed = int(MAX_ADDED_RATIO * self._decode_s.at(num_decoding) / self._token_s.value)
        return num_decoding + min(max(allowed, MIN_PROMPT_TOKENS), self._max_tokens)

    def observe(self, step_s: float, num_decoding: int, num_prompt_tokens: int) -> None:
        """What a step took."""
        if not num_prompt_tokens:
            self._decode_s.add(num_decoding, step_s)
        elif not num_decoding:
            self._token_s.add(step_s / num_prompt_tokens)
        elif self._decode_s.is_known:
            self._token_s.add(max(step_s - self._decode_s.at(num_decoding), 1e-7) / num_prompt_tokens)


class _Mean:
    """Of the latest values; of the first ones the least."""

    def __init__(self) -> None:
        self.value = 0.0
        self._count = 0

    @property
    def is_known(self) -> bool:
        return self._count > 0

    def add(self, value: float) -> None:
        self._count += 1
        if self._count == 1:
            self.value = value
        elif self._count <= _NUM_FIRST:
            self.value = min(self.value, value)
        else:
            self.value += _NEWEST * (value - self.value)


class _Line:
    """y by x: the means of the latest points, and a slope that is learnt wherever x changes and kept where it does not.
    A busy service makes no step without prompts for a long time, and has many more rows by then."""

    def __init__(self) -> None:
        self._x = self._y = self._slope = 0.0
        self.is_known = False

    def add(self, x: float, y: float) -> None:
        if not self.is_known:
            self._x, self._y, self.is_known = x, y, True
        away = x - self._x
        # Normalised least mean squares; the one in the divisor keeps noise at nearly the same x out of the slope.
        self._slope += _NEWEST * (y - self._y - self._slope * away) * away / (1.0 + away * away)
        self._x += _NEWEST * away
        self._y += _NEWEST * (y - self._y)

    def at(self, x: float) -> float:
        """Never falling with x; far below what was seen, a quarter of that at least."""
        return max(self._y + max(0.0, self._slope) * (x - self._x), self._y / 4)


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
