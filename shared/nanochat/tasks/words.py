"""The words that tasks ask about: English ones, split once into train and held out, and made-up ones.

The list is that of the pyspellchecker package (MIT), read as data. The split is a hash of the word itself, so it is
the same on every machine, for made-up words too, and whatever the list holds.
"""

import functools
import gzip
import hashlib
import importlib.resources
import json
import random
import re

from nanochat.tasks.base import Split

HELD_OUT_RATIO = 0.1
_USABLE = re.compile(r"[a-z]{2,15}")
_VOWELS = "aeiou"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def split_of(key: str) -> Split:
    """To which split a word, or any other key, belongs."""
    digest = hashlib.sha256(key.encode()).digest()
    return "held_out" if int.from_bytes(digest[:4], "big") < HELD_OUT_RATIO * 2**32 else "train"


@functools.cache
def english_words(split: Split) -> tuple[str, ...]:
    """Lower-case words of 2 to 15 letters a-z, sorted. Some 114,000 in train, 13,000 held out."""
    packed = importlib.resources.files("spellchecker").joinpath("resources/en.json.gz").read_bytes()
    listed = json.loads(gzip.decompress(packed))
    return tuple(sorted(word for word in listed if _USABLE.fullmatch(word) and split_of(word) == split))


def draw_word(rng: random.Random, split: Split, *, made_up_ratio: float = 0.2) -> str:
    """A word of the split. In train, some are made up, so that spelling carries over to letters in any order."""
    if split == "train" and rng.random() < made_up_ratio:
        return _made_up(rng)
    return rng.choice(english_words(split))


def _made_up(rng: random.Random) -> str:
    """Letters at random, or consonants and vowels in turn. Never a string that the hash holds out."""
    while True:
        length = rng.randint(2, 15)
        if rng.random() < 0.5:
            word = "".join(rng.choices(_LETTERS, k=length))
        else:
            word = "".join(rng.choice(_VOWELS if i % 2 else _LETTERS) for i in range(length))
        if split_of(word) == "train":
            return word
