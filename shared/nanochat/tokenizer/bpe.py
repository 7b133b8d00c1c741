"""The byte-level BPE tokenizer: rustbpe learns the merges (merges.py), tiktoken applies them.

Text never becomes a special token here, whatever it says; only chat.py and the engine place those, by id.
"""

import base64
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import tiktoken

from nanochat.errors import DataError, InvalidRequest, NotFound
from nanochat.files import write_file
from nanochat.tokenizer.merges import OnMerges, cut_long_spaces, learn
from nanochat.tokenizer.special import BOS, SPECIAL_TOKENS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# GPT-4's split with numbers of one or two digits instead of three, which suits small vocabularies.
SPLIT_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
MIN_VOCAB_SIZE = 256 + len(SPECIAL_TOKENS)

# Every byte, and what split patterns treat in ways of their own: one that loses a character of this is no split.
_PROBE = "".join(map(chr, range(256))) + " it's 12345\r\n\t  x\u0301 가나 中文 \U0001f600\u200d!?  \n \u3000"


class Tokenizer:
    """Ids 0 .. V - 10 are byte strings by rank, the last nine are SPECIAL_TOKENS. Immutable, safe between threads."""

    def __init__(self, tokens: Sequence[bytes], pattern: str = SPLIT_PATTERN) -> None:
        """`tokens` by rank, all 256 single bytes among them, none twice (an assert: load() checks files)."""
        self._tokens = tuple(tokens)
        self._pattern = pattern
        ranks = {token: rank for rank, token in enumerate(self._tokens)}
        assert len(ranks) == len(self._tokens), "a token stands twice"
        self._special_ids = {name: len(ranks) + i for i, name in enumerate(SPECIAL_TOKENS)}
        self._encoding = tiktoken.Encoding(
            "nanochat", pat_str=pattern, mergeable_ranks=ranks, special_tokens=self._special_ids
        )

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, on_merges: OnMerges | None = None) -> Self:
        """Learn `vocab_size` tokens, the nine special ones included. Deterministic; memory grows with distinct words.

        Raises DataError when there is no text, or too few different words for so many tokens: a smaller vocabulary than
        asked for would surprise the model's config, so the caller chooses one.
        """
        if vocab_size < MIN_VOCAB_SIZE:
            raise InvalidRequest(
                f"vocab_size is {vocab_size}; the bytes and special tokens alone take {MIN_VOCAB_SIZE}.",
                param="vocab_size",
            )
        wanted = vocab_size - len(SPECIAL_TOKENS)
        tokens = learn(_given(texts), wanted, SPLIT_PATTERN, on_merges)
        if len(tokens) < wanted:
            found = len(tokens) + len(SPECIAL_TOKENS)
            raise DataError(
                f"the text gives {found} tokens at most and vocab_size is {vocab_size}; "
                f"give more text or a vocab_size of at most {found}.",
                param="vocab_size",
            )
        return cls(tokens)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read tokenizer.json, or the one in a folder. Raises NotFound or DataError naming the file."""
        path = path / "tokenizer.json" if path.is_dir() else path
        try:
            values = json.loads(path.read_bytes())
        except FileNotFoundError as exc:
            raise NotFound(f"no tokenizer at {path}; train one with a job of kind tokenizer.") from exc
        except (OSError, ValueError, RecursionError) as exc:
            raise DataError(f"tokenizer file {path} cannot be read: {exc}. Train it again or restore it.") from exc
        tokens, pattern = _parse(values, path)
        try:
            tokenizer = cls(tokens, pattern)
        except ValueError as exc:
            raise DataError(f"tokenizer file {path} has a pattern that does not compile: {exc}.") from exc
        if tokenizer.decode(tokenizer.encode(_PROBE)) != _PROBE:
            raise DataError(
                f"tokenizer file {path} has a pattern that loses text: {pattern[:80]!r}. Train it again or restore it."
            )
        return tokenizer

    def to_json(self) -> bytes:
        """The content of tokenizer.json: base64 of each token by rank, never pickle."""
        values = {
            "pattern": self._pattern,
            "tokens_base64_by_rank": [base64.b64encode(token).decode() for token in self._tokens],
            "special_tokens": self._special_ids,
        }
        return json.dumps(values, ensure_ascii=False).encode()

    def save(self, path: Path) -> None:
        """Write `path` (or tokenizer.json in a folder) in one step. Raises OSError."""
        write_file(path / "tokenizer.json" if path.is_dir() else path, self.to_json())

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, never special ones. Raises InvalidRequest on half of a surrogate pair."""
        pieces = _pieces(_checked(text))
        if len(pieces) == 1:
            return self._encoding.encode_ordinary(text)
        return [token_id for piece in pieces for token_id in self._encoding.encode_ordinary(piece)]

    def encode_array(self, text: str) -> "NDArray[np.int32]":
        """As encode, (n,) int32: no integer of Python's is made, and other threads run all the while."""
        import numpy as np  # here, so that services which only encode do not need it

        pieces = _pieces(_checked(text))
        ids = [self._encoding.encode_to_numpy(piece, disallowed_special=()) for piece in pieces]
        return (ids[0] if len(ids) == 1 else np.concatenate(ids)).astype(np.int32)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids; special tokens leave nothing, bytes that are no whole character become U+FFFD."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes a token stands for; empty for special tokens. Raises InvalidRequest outside the vocabulary."""
        if 0 <= token_id < len(self._tokens):
            return self._tokens[token_id]
        if not 0 <= token_id < self.vocab_size:
            raise InvalidRequest(f"token id {token_id} is outside the vocabulary of {self.vocab_size}.")
        return b""

    def token_byte_lengths(self) -> list[int]:
        """Bytes of each token, (V,), for bits per byte: special tokens count none."""
        return [len(token) for token in self._tokens] + [0] * len(SPECIAL_TOKENS)

    def special_id(self, name: str) -> int:
        """Id of one of SPECIAL_TOKENS; anything else is a KeyError, our own mistake."""
        return self._special_ids[name]

    @property
    def pattern(self) -> str:
        """By which text is split before merging."""
        return self._pattern

    @property
    def bos_id(self) -> int:
        return self._special_ids[BOS]

    @property
    def vocab_size(self) -> int:
        """V, the nine special tokens included."""
        return len(self._tokens) + len(SPECIAL_TOKENS)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and (self._tokens, self._pattern) == (other._tokens, other._pattern)

    def __hash__(self) -> int:
        return hash((self._tokens, self._pattern))


def _checked(text: str) -> str:
    """tiktoken would replace half of a surrogate pair silently."""
    if text.isascii():  # known without a look at the text
        return text
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidRequest(
            f"text is not valid Unicode: half of a surrogate pair at character {exc.start}. Send well-formed UTF-8."
        ) from exc
    return text


def _pieces(text: str) -> list[str]:
    return list(cut_long_spaces((text,)))


def _given(texts: Iterable[str]) -> Iterator[str]:
    """The texts, checked. Raises DataError where there is not a character in them."""
    is_empty = True
    for text in texts:
        is_empty = is_empty and not text
        yield _checked(text)
    if is_empty:
        raise DataError("there is no text to learn tokens from: every document is empty. Give a dataset with text.")


def _parse(values: Any, path: Path) -> tuple[list[bytes], str]:
    """Tokens and pattern of a parsed tokenizer.json. Raises DataError that says what is wrong with it."""

    def wrong(what: str) -> DataError:
        return DataError(f"tokenizer file {path} {what}. Train it again or restore it.")

    keys = {"pattern", "tokens_base64_by_rank", "special_tokens"}
    if not isinstance(values, dict) or set(values) != keys:
        found = sorted(values) if isinstance(values, dict) else type(values).__name__
        raise wrong(f"should have the keys {sorted(keys)} and has {found}")
    if not isinstance(values["tokens_base64_by_rank"], list):
        raise wrong("has tokens that are no list")
    try:
        tokens = [base64.b64decode(token, validate=True) for token in values["tokens_base64_by_rank"]]
    except (TypeError, ValueError) as exc:
        raise wrong("has a token that is not base64") from exc
    if len(set(tokens)) != len(tokens):
        twice, _ = Counter(tokens).most_common(1)[0]
        raise wrong(f"has the token {twice!r} twice, at ranks {tokens.index(twice)} and later")
    if b"" in tokens:
        raise wrong(f"has an empty token, at rank {tokens.index(b'')}")
    if missing := {bytes([byte]) for byte in range(256)} - set(tokens):
        raise wrong(f"lacks {len(missing)} of the 256 single bytes, such as {min(missing)!r}")
    if values["special_tokens"] != {name: len(tokens) + i for i, name in enumerate(SPECIAL_TOKENS)}:
        raise wrong(f"should give the ids from {len(tokens)} on to {', '.join(SPECIAL_TOKENS)}, in this order")
    if not isinstance(values["pattern"], str):
        raise wrong("has a pattern that is no text")
    return tokens, values["pattern"]
