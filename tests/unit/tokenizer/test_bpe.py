"""Training, encoding and the file of the tokenizer."""

import json
import random
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.errors import DataError, InvalidRequest, NotFound
from nanochat.tokenizer.bpe import MIN_VOCAB_SIZE, Tokenizer
from nanochat.tokenizer.special import SPECIAL_TOKENS


@given(text=st.text())
def test_any_text_comes_back_as_it_was(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(text=st.lists(st.sampled_from([*SPECIAL_TOKENS, "<|", "|>", "bos", " ", "\n"])).map("".join))
def test_text_never_becomes_a_special_token(tokenizer: Tokenizer, text: str) -> None:
    assert all(token_id < 320 - 9 for token_id in tokenizer.encode(text))


@given(text=st.lists(st.text(max_size=20) | st.sampled_from(SPECIAL_TOKENS)).map("".join))
def test_an_array_holds_the_ids_of_a_list(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode_array(text)
    assert ids.dtype == np.int32
    assert ids.tolist() == tokenizer.encode(text)


def test_every_byte_and_ten_thousand_strings_of_any_characters_come_back(tokenizer: Tokenizer) -> None:
    dice = random.Random(0)
    assert {bytes([byte]) for byte in range(256)} <= {tokenizer.token_bytes(token) for token in range(320)}
    # All planes, but for the halves of surrogate pairs, which no UTF-8 holds.
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    for _ in range(10_000):
        text = "".join(dice.choices(characters, k=dice.randint(1, 40)))
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()
        assert max(ids) < tokenizer.vocab_size - len(SPECIAL_TOKENS)


def test_training_gives_the_size_asked_for_and_the_same_tokens_each_time(
    tokenizer: Tokenizer, texts: list[str]
) -> None:
    assert tokenizer.vocab_size == 320
    assert Tokenizer.train(iter(texts), 320) == tokenizer


def test_training_merges_frequent_words_into_single_tokens(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode(" the fox")) < 4


def test_numbers_split_in_pairs_of_digits() -> None:
    tokenizer = Tokenizer.train(["12345678 " * 50], 269)
    assert [tokenizer.token_bytes(i) for i in tokenizer.encode("1234567")] == [b"12", b"34", b"56", b"7"]


def test_repeated_letters_leave_no_token_twice_and_no_gap() -> None:
    tokenizer = Tokenizer.train(["a" * n for n in range(1, 200)] + ["xaaaa yaaa"] * 9, 275)
    tokens = [tokenizer.token_bytes(i) for i in range(275 - 9)]
    assert len(set(tokens)) == 275 - 9


def test_too_large_a_vocabulary_says_what_the_text_gives() -> None:
    with pytest.raises(DataError, match=r"gives 270 tokens at most and vocab_size is 5000") as caught:
        Tokenizer.train(["hello hello"], 5000)
    assert caught.value.param == "vocab_size"


def test_the_size_named_by_that_error_works() -> None:
    with pytest.raises(DataError) as caught:
        Tokenizer.train(["hello hello"], 5000)
    size = int(caught.value.message.rstrip(".").rpartition(" ")[2])
    assert Tokenizer.train(["hello hello"], size).vocab_size == size


@pytest.mark.parametrize("texts", [[], ["", ""]])
def test_no_text_at_all_is_said(texts: list[str]) -> None:
    with pytest.raises(DataError, match="every document is empty"):
        Tokenizer.train(texts, 300)


def test_too_small_a_vocabulary_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=str(MIN_VOCAB_SIZE)):
        Tokenizer.train(["hello"], MIN_VOCAB_SIZE - 1)


def test_the_special_tokens_take_the_last_nine_ids_in_order(tokenizer: Tokenizer) -> None:
    assert [tokenizer.special_id(name) for name in SPECIAL_TOKENS] == list(range(311, 320))
    assert tokenizer.bos_id == 311


def test_special_tokens_have_no_bytes_and_no_text(tokenizer: Tokenizer) -> None:
    specials = list(range(311, 320))
    assert [tokenizer.token_bytes(i) for i in specials] == [b""] * 9
    assert tokenizer.decode(specials) == ""


def test_byte_lengths_of_a_text_add_up_to_its_bytes(tokenizer: Tokenizer, texts: list[str]) -> None:
    lengths = tokenizer.token_byte_lengths()
    assert len(lengths) == tokenizer.vocab_size
    assert lengths[-9:] == [0] * 9
    text = texts[3]
    assert sum(lengths[i] for i in tokenizer.encode(text)) == len(text.encode())


def test_half_a_character_decodes_to_the_replacement_mark(tokenizer: Tokenizer) -> None:
    ids = [i for i in range(256) if tokenizer.token_bytes(i) == "é".encode()[:1]]
    assert tokenizer.decode(ids) == "\ufffd"


@pytest.mark.parametrize("token_id", [-1, 320])
def test_ids_outside_the_vocabulary_are_refused(tokenizer: Tokenizer, token_id: int) -> None:
    with pytest.raises(InvalidRequest, match="outside the vocabulary of 320"):
        tokenizer.decode([token_id])


def test_half_a_surrogate_pair_is_refused_by_position(tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidRequest, match="at character 2"):
        tokenizer.encode("ab\ud800")
    with pytest.raises(InvalidRequest, match="at character 2"):
        tokenizer.encode_array("ab\udfff")
    with pytest.raises(InvalidRequest, match="at character 0"):
        Tokenizer.train(["\ud83d"], 300)


def test_a_million_spaces_encode_and_train(tokenizer: Tokenizer) -> None:
    text = "a" + " " * 1_200_000 + "b"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode_array(text).tolist() == tokenizer.encode(text)
    assert Tokenizer.train([text], 270).vocab_size == 270


def test_a_saved_tokenizer_loads_equal_from_file_and_from_folder(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    assert Tokenizer.load(tmp_path / "tokenizer.json") == tokenizer
    assert Tokenizer.load(tmp_path) == tokenizer
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]


def test_saving_makes_the_folders(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizers" / "mine" / "tokenizer.json")
    assert Tokenizer.load(tmp_path / "tokenizers" / "mine") == tokenizer


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="train one"):
        Tokenizer.load(tmp_path / "tokenizer.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("pattern"), "should have the keys"),
        (lambda v: v.update(extra=1), "should have the keys"),
        (lambda v: v.update(pattern=3), "pattern that is no text"),
        (lambda v: v.update(pattern="("), "does not compile"),
        (lambda v: v.update(pattern="[a-z]+"), "loses text"),
        (lambda v: v.update(tokens_base64_by_rank=7), "no list"),
        (lambda v: v.update(tokens_base64_by_rank=dict.fromkeys(v["tokens_base64_by_rank"])), "no list"),
        (lambda v: v["tokens_base64_by_rank"].append(""), "empty token, at rank 311"),
        (lambda v: v["tokens_base64_by_rank"].append("!"), "not base64"),
        (lambda v: v["tokens_base64_by_rank"].append(v["tokens_base64_by_rank"][-1]), "twice, at ranks 310"),
        (lambda v: v["tokens_base64_by_rank"].pop(65), "lacks 1 of the 256 single bytes, such as b'A'"),
        (lambda v: v["tokens_base64_by_rank"].pop(), "in this order"),
        (lambda v: v["special_tokens"].pop("<|bos|>"), "in this order"),
    ],
)
def test_a_malformed_file_is_refused_by_name(
    tokenizer: Tokenizer, tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    values = json.loads(tokenizer.to_json())
    change(values)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(values))
    with pytest.raises(DataError, match=message) as caught:
        Tokenizer.load(path)
    assert str(path) in caught.value.message


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"null", b"[" * 100_000])
def test_a_file_that_is_no_json_object_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path)


def test_tokenizers_work_without_torch_and_numpy() -> None:
    script = """
        import sys
        import nanochat.tokenizer.chat
        from nanochat.tokenizer.bpe import Tokenizer
        Tokenizer.train(["hello hello"], 266).encode("hello")
        print({"torch", "numpy"} & set(sys.modules))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
