"""Learns the tokens of a byte-level BPE with rustbpe, and tells how far it is.

rustbpe counts the pieces of the texts in threads of its own, and keeps each different piece once, with its count. Then
it merges, and holds the interpreter's lock until it has ended: the lines it logs, one a percent, are the only Python
that runs meanwhile, so progress and the wish to stop come through them.
"""

import logging
import re
from collections.abc import Callable, Iterable, Iterator

OnMerges = Callable[[int, int], None]
"""How many merges are done, of how many; (0, n) once the texts are read. What it raises is lost: rustbpe goes on."""

_PROGRESS = re.compile(r"(\d+)/(\d+) merges")
# The split pattern backtracks over a run of white space and its stack ends near 10**6; longer runs are cut first.
_MAX_SPACES = 200_000
_LONG_SPACES = re.compile(rf"\s{{{_MAX_SPACES}}}")


def learn(texts: Iterable[str], num_tokens: int, pattern: str, on_merges: OnMerges | None = None) -> list[bytes]:
    """At most `num_tokens` tokens by rank, the 256 bytes first; fewer where the texts have no more. Deterministic.

    Takes 8192 texts at a time. What iterating over them raises comes out as it is.
    """
    import rustbpe  # here, so that services which only encode do not need it

    logger = logging.getLogger("rustbpe")
    # Before its first line: it asks for the level once and keeps the answer.
    logger.setLevel(logging.INFO)
    logger.propagate = False
    trainer = rustbpe.Tokenizer()
    listener = _Listener(on_merges, num_tokens - 256)
    logger.addHandler(listener)
    try:
        trainer.train_from_iterator(cut_long_spaces(texts), num_tokens, pattern=pattern)
    finally:
        logger.removeHandler(listener)
    return [bytes(token) for token, _ in sorted(trainer.get_mergeable_ranks(), key=lambda pair: pair[1])]


def cut_long_spaces(texts: Iterable[str]) -> Iterator[str]:
    """The texts, cut only inside runs of white space that a split pattern cannot take."""
    for text in texts:
        if len(text) < _MAX_SPACES:
            yield text
            continue
        start = 0
        for match in _LONG_SPACES.finditer(text):
            yield text[start : match.end()]
            start = match.end()
        yield text[start:]


class _Listener(logging.Handler):
    """Hears rustbpe's lines and calls `on_merges`, with every line: each is a chance to stop."""

    def __init__(self, on_merges: OnMerges | None, num_merges: int) -> None:
        super().__init__()
        self._on_merges = on_merges
        self._num_merges = num_merges
        self._num_done = 0

    def emit(self, record: logging.LogRecord) -> None:
        if self._on_merges is None or self._num_merges <= 0:
            return
        if found := _PROGRESS.search(record.getMessage()):
            self._num_done = int(found[1])
        self._on_merges(self._num_done, self._num_merges)
