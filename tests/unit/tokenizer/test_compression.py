"""How well tokenizers pack, by kind of text; well-known ones are taken from tiktoken's cache or left out."""

from pathlib import Path

import pytest
import tiktoken.load

from nanochat.errors import Unavailable
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.compression import KINDS, WellKnown, measure, sample_texts


class Bytes:
    """A token a byte."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode())


def test_every_kind_has_a_page_of_text_that_comes_back_whole(tokenizer: Tokenizer) -> None:
    texts = sample_texts()
    assert tuple(texts) == KINDS
    for text in texts.values():
        assert 1000 < len(text.encode()) < 3000
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert sum("가" <= char <= "힣" for char in texts["korean"]) > 300


def test_tokens_are_counted_over_all_texts_and_beside_others(tokenizer: Tokenizer) -> None:
    texts = ["the model", "모델", ""]
    found = measure("both", texts, tokenizer, {"bytes": Bytes()})
    assert found is not None
    assert (found.num_bytes, found.others["bytes"]) == (15, 15)
    assert found.num_tokens == sum(len(tokenizer.encode(text)) for text in texts)
    assert found.bytes_per_token == 15 / found.num_tokens
    assert found.ratio_to("bytes") == found.num_tokens / 15
    assert measure("nothing", [], tokenizer, {}) is None


def test_what_tiktoken_does_not_have_is_not_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    read_file = tiktoken.load.read_file
    monkeypatch.setattr("tiktoken.registry.ENCODINGS", {})
    with pytest.raises(Unavailable, match=r"cl100k_base.tiktoken is not in tiktoken's cache"):
        WellKnown("GPT-4")
    assert tiktoken.load.read_file is read_file
    assert list(tmp_path.iterdir()) == []
