"""A small tokenizer trained on a text of our own: quick, and without reference data."""

import pytest

from nanochat.tokenizer.bpe import Tokenizer

TEXTS = [
    "The quick brown fox jumps over the lazy dog, and the dog is not amused by the fox.",
    "Seventeen sailors sang several songs while the storm was still far from the shore.",
    "Numbers such as 1234 and 567890 are cut in pairs. It's what we've agreed on, isn't it?\n\n",
    "Ein paar Wörter mit Umlauten: schön, grün, Übermut. 中文也有一些。",
] * 3


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return TEXTS


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS, 320)
