"""The tokenizer as the `tokenizers` library stores it, written and read; neither needs that library.

Both apply merges in the order of ranks to the pieces that the same pattern cuts, so ids are equal. What differs: there,
text that reads like a special token becomes one. chat_template.jinja, which renders conversations there as chat.py does
here, refuses such text unless transformers is asked to keep it text (sanitize_control_tokens=True).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nanochat.errors import DataError
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.special import SPECIAL_TOKENS

_CHAT_TEMPLATE = Path(__file__).parent / "chat_template.jinja"


def chat_template() -> str:
    """What transformers' tokenizers render conversations with."""
    return _CHAT_TEMPLATE.read_text()


def to_huggingface(tokenizer: Tokenizer) -> dict[str, Any]:
    """The content of a tokenizer.json of `tokenizers`."""
    tokens = [tokenizer.token_bytes(token_id) for token_id in range(tokenizer.vocab_size - len(SPECIAL_TOKENS))]
    specials = [
        {
            "id": tokenizer.special_id(name),
            "content": name,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for name in SPECIAL_TOKENS
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": specials,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": tokenizer.pattern},
                    "behavior": "Isolated",
                    "invert": False,
                },
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            ],
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            # As tiktoken does: a piece that is a token is that token, whether merges lead there or not.
            "ignore_merges": True,
            "vocab": {_spell(token): rank for rank, token in enumerate(tokens)},
            "merges": [[_spell(left), _spell(right)] for left, right in _merges(tokens)],
        },
    }


def from_huggingface(values: Mapping[str, Any], path: Path) -> Tokenizer:
    """The tokenizer that a parsed tokenizer.json of `tokenizers` describes, where it is one of ours.

    Raises DataError, naming `path`, where it splits, normalises or numbers its tokens in another way.
    """

    def wrong(what: str) -> DataError:
        return DataError(f"tokenizer file {path} {what}; only a byte-level BPE as nanochat trains it can be imported.")

    try:
        model, added = values["model"], values["added_tokens"]
        vocabulary: dict[str, int] = model["vocab"]
        pattern, kind = _pattern(values["pre_tokenizer"]), model["type"]
        names = {token["content"]: token["id"] for token in added}
        plain = {text: token_id for text, token_id in vocabulary.items() if text not in names}
        tokens = [_unspell(text) for text in sorted(plain, key=plain.__getitem__)]
        merged = [vocabulary[left + right] for left, right in map(_pair, model["merges"])]
        is_numbered = sorted(plain.values()) == list(range(len(tokens)))
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise wrong(f"is not laid out as expected ({type(exc).__name__}: {exc})") from exc
    if kind != "BPE" or values.get("normalizer") is not None:
        raise wrong(f"has a model of type {kind} and the normalizer {values.get('normalizer')}")
    if not is_numbered or names != {name: len(tokens) + i for i, name in enumerate(SPECIAL_TOKENS)}:
        raise wrong(f"does not give its last ids to {', '.join(SPECIAL_TOKENS)}, in this order")
    if merged != sorted(merged):
        raise wrong("has merges in another order than that of its ids")
    if len(set(tokens)) != len(tokens) or not {bytes([byte]) for byte in range(256)} <= set(tokens):
        raise wrong("has a token twice, or lacks one of the 256 single bytes")
    try:
        return Tokenizer(tokens, pattern)
    except ValueError as exc:
        raise wrong(f"has a pattern that does not compile ({exc})") from exc


def load_any(path: Path) -> Tokenizer:
    """A tokenizer.json of either kind. Raises NotFound or DataError naming the file."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return Tokenizer.load(path)  # which says what is wrong
    return from_huggingface(values, path) if isinstance(values, dict) and "model" in values else Tokenizer.load(path)


def _merges(tokens: list[bytes]) -> list[tuple[bytes, bytes]]:
    """Every pair of tokens that makes a third, by the rank of what it makes: tiktoken's rule, written out."""
    known = set(tokens)
    return [
        (token[:cut], token[cut:])
        for token in tokens
        for cut in range(1, len(token))
        if token[:cut] in known and token[cut:] in known
    ]


def _pair(merge: str | list[str]) -> tuple[str, str]:
    """Older files hold "left right"; no spelling contains a space."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _pattern(pre_tokenizer: Mapping[str, Any]) -> str:
    """Of a split by a pattern, then bytes. Raises ValueError on any other."""
    split, byte_level = pre_tokenizer["pretokenizers"]
    is_ours = (
        split["type"] == "Split"
        and split["behavior"] == "Isolated"
        and split.get("invert") in (False, None)
        and byte_level["type"] == "ByteLevel"
        and byte_level["add_prefix_space"] is False
        and byte_level.get("use_regex") is False
    )
    if not is_ours:
        raise ValueError("the text is split in another way than by one pattern")
    return str(split["pattern"]["Regex"])


def _byte_spellings() -> list[str]:
    """How byte-level vocabularies write a byte: as the character of its number, the unprintable from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


_SPELLINGS = _byte_spellings()
_BYTES = {character: byte for byte, character in enumerate(_SPELLINGS)}


def _spell(token: bytes) -> str:
    return "".join(_SPELLINGS[byte] for byte in token)


def _unspell(text: str) -> bytes:
    return bytes(_BYTES[character] for character in text)
