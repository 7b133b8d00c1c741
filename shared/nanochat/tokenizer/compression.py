"""How few tokens a tokenizer needs for texts of several kinds, beside well-known ones.

The kinds' texts are samples/: a page of each, written for this. A tokenizer says little about kinds that it was not
trained on: that is what they show.
"""

import functools
import importlib.resources
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from nanochat.errors import Unavailable

KINDS = ("news", "code", "mathematics", "science", "korean")
# By tiktoken's names.
WELL_KNOWN = {"GPT-2": "gpt2", "GPT-4": "cl100k_base"}


class Encodes(Protocol):
    def encode(self, text: str) -> list[int]: ...


@dataclass(frozen=True, kw_only=True)
class Compression:
    """Of all texts of a kind together. `others` has the tokens that well-known tokenizers need, by their names."""

    kind: str
    num_bytes: int
    num_tokens: int
    others: Mapping[str, int]

    @property
    def bytes_per_token(self) -> float:
        return self.num_bytes / self.num_tokens

    def ratio_to(self, name: str) -> float:
        """Tokens needed to those that the other one needs: below 1 is fewer."""
        return self.num_tokens / self.others[name]


def sample_texts() -> dict[str, str]:
    folder = importlib.resources.files(__package__).joinpath("samples")
    return {kind: folder.joinpath(f"{kind}.txt").read_text(encoding="utf-8") for kind in KINDS}


def measure(kind: str, texts: Iterable[str], tokenizer: Encodes, others: Mapping[str, Encodes]) -> Compression | None:
    """None where there is no text."""
    num_bytes = num_tokens = 0
    needed = dict.fromkeys(others, 0)
    for text in texts:
        num_bytes += len(text.encode())
        num_tokens += len(tokenizer.encode(text))
        for name, other in others.items():
            needed[name] += len(other.encode(text))
    return Compression(kind=kind, num_bytes=num_bytes, num_tokens=num_tokens, others=needed) if num_tokens else None


class WellKnown:
    """One of tiktoken's own encodings, where its files are in tiktoken's cache: nothing is downloaded.

    Raises Unavailable where they are not.
    """

    def __init__(self, name: str) -> None:
        import tiktoken
        import tiktoken.load

        def refuse(blobpath: str) -> bytes:
            raise Unavailable(f"{blobpath.rpartition('/')[2]} is not in tiktoken's cache (TIKTOKEN_CACHE_DIR)")

        # The one function of tiktoken's that reads what the cache does not hold.
        read_file, tiktoken.load.read_file = tiktoken.load.read_file, refuse
        try:
            self._encoding = tiktoken.get_encoding(WELL_KNOWN[name])
        finally:
            tiktoken.load.read_file = read_file

    def encode(self, text: str) -> list[int]:
        return self._encoding.encode_ordinary(text)


@functools.cache
def well_known() -> tuple[dict[str, WellKnown], dict[str, str]]:
    """Those that are here by name, and why each other one is not."""
    found, missing = {}, {}
    for name in WELL_KNOWN:
        try:
            found[name] = WellKnown(name)
        except Unavailable as exc:
            missing[name] = exc.message
    return found, missing
