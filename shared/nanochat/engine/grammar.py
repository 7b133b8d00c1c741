"""response_format: which tokens may come next in a row, by xgrammar's matcher and masks.

A grammar decides over bytes. Of the special tokens assistant_end alone is allowed, and only where the text is complete;
so a row with a grammar makes no tool calls. Grammars are compiled in grammar_compiler.py, once for all rows that ask
for the same. xgrammar is loaded when the first one is: it takes a second and 90 MB.
"""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nanochat.errors import InvalidRequest

if TYPE_CHECKING:
    import xgrammar


# What grammar_process.py is asked for: of these, tokens with control characters are left out.
JSON_KINDS = ("json_object", "json_schema")


class GrammarState:
    """How far one row has come in its grammar. For one thread."""

    def __init__(self, compiled: "xgrammar.CompiledGrammar") -> None:
        self.matcher: xgrammar.GrammarMatcher = load_xgrammar().GrammarMatcher(compiled)
        self._is_stuck = False

    def accept(self, token_id: int) -> None:
        """The row has this token, which its last mask allowed."""
        # Not all rows at once: xgrammar's call for that takes longer, 1.5 us a row against 1.
        is_accepted = self._is_stuck or self.matcher.accept_token(token_id)
        assert is_accepted, f"token {token_id} is not what the grammar allows here"

    def allow_end(self, mask: Tensor) -> None:
        """At a dead end of the grammar: write the end alone into the row's mask, a bit a token."""
        self._is_stuck = True
        for token_id in self.matcher.stop_token_ids:
            mask[token_id // 32] = torch.tensor(1 << token_id % 32).to(torch.int32)  # bit 31 is the sign


def constrained(logits: Tensor, states: Sequence[GrammarState | None]) -> Tensor:
    """A copy of logits (B, V) with -inf where a row's grammar forbids; the same tensor where no row has one."""
    rows = [row for row, state in enumerate(states) if state is not None]
    if not rows:
        return logits
    is_allowed = _allowed([state for state in states if state is not None], logits.size(1)).to(logits.device)
    if len(rows) == len(states):
        return torch.where(is_allowed, logits, -torch.inf)
    changed = logits.clone()
    changed[rows] = torch.where(is_allowed, logits[rows], -torch.inf)
    return changed


def _allowed(states: Sequence[GrammarState], V: int) -> Tensor:
    """Which tokens may come next: (B, V) bool on the CPU."""
    masks = torch.zeros((len(states), -(-V // 32)), dtype=torch.int32)
    _matchers().batch_fill_next_token_bitmask([state.matcher for state in states], masks)
    words = masks.numpy()
    for row in np.flatnonzero(~words.any(axis=1)).tolist():
        states[row].allow_end(masks[row])
    # (B, V / 32) -> (B, V)
    bits = np.unpackbits(words.view(np.uint8), axis=1, count=V, bitorder="little")
    return torch.from_numpy(bits).view(torch.bool)


@cache
def _matchers() -> "xgrammar.BatchGrammarMatcher":
    """Holds nothing of any row. One thread: 32 rows take 20 us, and to wake a second one takes longer than that."""
    matchers: xgrammar.BatchGrammarMatcher = load_xgrammar().BatchGrammarMatcher(max_threads=1)
    return matchers


def token_table(tokens: Sequence[bytes], stop_id: int, *, is_json: bool) -> "xgrammar.TokenizerInfo":
    """What xgrammar needs to know of a tokenizer. Takes tens of milliseconds.

    With is_json, tokens with control characters are never allowed: JSON has none as they are, but xgrammar would let
    them into strings of limited length.
    """
    package = load_xgrammar()
    # A token without bytes counts as special there and is never allowed.
    given = [b"" if is_json and min(token, default=0) < 0x20 else token for token in tokens]
    table: xgrammar.TokenizerInfo = package.TokenizerInfo(
        given, package.VocabType.RAW, vocab_size=len(tokens), stop_token_ids=[stop_id]
    )
    return table


def load_xgrammar() -> Any:
    """The package. Raises InvalidRequest where it is not installed: no format is ever ignored."""
    try:
        import xgrammar
    except ImportError as exc:
        raise InvalidRequest(
            f"response_format needs the package xgrammar, which this server lacks ({exc}). Leave response_format out, "
            "or install nanochat-shared[grammar] on the server.",
            param="response_format",
        ) from exc
    return xgrammar
