"""Ways in which people write the same request: quotes, capitals, "please", a full stop or none.

Tasks hold their own templates; this varies what is the same for all of them.
"""

import random

from nanochat.tasks.base import Split

_OPENINGS = (
    "Please ",
    "Hi, ",
    "Hey, ",
    "Hello! ",
    "Can you tell me: ",
    "Tell me, ",
    "Quick question: ",
    "OK, ",
    "Now: ",
)
_QUOTES = (('"', '"'), ("'", "'"), ("“", "”"), ("`", "`"))


def quoted(rng: random.Random, word: str, *, ratio: float = 0.4) -> str:
    """The word in some kind of quotes, or as it is."""
    if rng.random() >= ratio:
        return word
    left, right = rng.choice(_QUOTES)
    return left + word + right


def capitalised(rng: random.Random, word: str, split: Split) -> str:
    """The word with a capital, sometimes in capitals altogether. In train twice as often: they take most practice."""
    if rng.random() >= (0.2 if split == "train" else 0.1):
        return word
    return word.upper() if rng.random() < 0.25 else word.capitalize()


def varied(rng: random.Random, request: str, kept: str = "") -> str:
    """A request with another opening, ending or capital. The first letter keeps its case where `kept` begins it."""
    if rng.random() < 0.15:
        opening = rng.choice(_OPENINGS)
        request = opening + (request if kept and request.startswith(kept) else _lower_first(request))
    elif rng.random() < 0.2 and not (kept and request.startswith(kept)):
        request = _lower_first(request)
    if rng.random() < 0.15:
        request = request.rstrip("?.")
    elif request[-1] not in "?.!" and not (kept and request.endswith(kept)) and rng.random() < 0.3:
        request += "."
    if rng.random() < 0.05:
        request = request.rstrip(".") + ", please" if request[-1] != "?" else request[:-1] + ", please?"
    return request


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
