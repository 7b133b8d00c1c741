"""The same ids from the `tokenizers` library and from transformers' chat templates as from ours, and back again."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from jinja2.exceptions import TemplateError
from transformers import TokenizersBackend

from nanochat.errors import DataError
from nanochat.protocol.generate import Message
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.chat import render, render_prompt
from nanochat.tokenizer.huggingface import chat_template, from_huggingface, load_any, to_huggingface
from nanochat.tokenizer.special import SPECIAL_TOKENS

LANGUAGES = [
    "The quick brown fox doesn't jump; it's 1234567 km away -- isn't it?\n\n  Indented\ttabs \r\n\r\n end  ",
    "Grüße aus Köln: daß »Übermut« selten gut tut. L'été à Nîmes, l'œuvre, naïveté. ¿Dónde está el niño?",
    "Съешь же ещё этих мягких французских булок. Ελληνικά: η γρήγορη αλεπού, ΔΕΚΑ ἀρχῇ.",
    "中文分词没有空格。日本語のカタカナとひらがな。한국어 문장도 있습니다.",
    "العربية من اليمين إلى اليسار ١٢٣٤ عברית שלום हिन्दी में एक वाक्य ไทยไม่มีวรรค",
    "emoji 👩‍👩‍👧‍👦 🏳️‍🌈 maths ∑∫ℝ² ①②③ Ⅷ ½",
    "combining e\u0301 zero\u200bwidth nbsp\u00a0nel\u0085ls\u2028ideographic\u3000",
    "IT'S WE'LL THEY'VE '\u017f '\u017ft \u212aelvin",
    "def f(x):\n\treturn x**2  # comment\n\n\n    if True:   pass\n",
    "",
    " ",
    "\n\n\n",
]


@pytest.fixture(scope="module")
def theirs(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_str(json.dumps(to_huggingface(tokenizer)))


@pytest.fixture(scope="module")
def transformers_tokenizer(theirs: tokenizers.Tokenizer) -> TokenizersBackend:
    return TokenizersBackend(tokenizer_object=theirs, bos_token="<|bos|>", chat_template=chat_template())


@pytest.mark.parametrize("text", LANGUAGES)
def test_ids_are_equal_in_many_languages(tokenizer: Tokenizer, theirs: tokenizers.Tokenizer, text: str) -> None:
    assert theirs.encode(text).ids == tokenizer.encode(text)
    assert theirs.decode(tokenizer.encode(text)) == text


# Such text is theirs to refuse or to keep as text (sanitize_control_tokens); as it is, they take it for the token.
PLAIN_TEXT = st.text().filter(lambda text: not any(token in text for token in SPECIAL_TOKENS))


@given(text=PLAIN_TEXT)
def test_ids_are_equal_on_any_text(tokenizer: Tokenizer, theirs: tokenizers.Tokenizer, text: str) -> None:
    assert theirs.encode(text).ids == tokenizer.encode(text)


@given(text=st.text("ab", max_size=12))
def test_ids_are_equal_where_a_token_has_more_than_one_way_to_be_made(text: str) -> None:
    """A vocabulary that no training gives: tokens whose halves overlap, and one that no merge leads to."""
    tokens = [*(bytes([byte]) for byte in range(256)), b"ba", b"ab", b"aba", b"bab", b"abab", b"baab", b"bbbbb"]
    odd = Tokenizer(tokens)
    theirs = tokenizers.Tokenizer.from_str(json.dumps(to_huggingface(odd)))
    assert theirs.encode(text).ids == odd.encode(text)


def test_special_tokens_have_their_ids_and_decode_to_themselves_or_nothing(
    tokenizer: Tokenizer, theirs: tokenizers.Tokenizer
) -> None:
    assert theirs.get_vocab_size() == tokenizer.vocab_size
    for name in SPECIAL_TOKENS:
        assert theirs.token_to_id(name) == tokenizer.special_id(name)
        assert theirs.encode(f"a {name}b").ids == [*tokenizer.encode("a "), tokenizer.special_id(name), ord("b")]
    assert theirs.decode([tokenizer.bos_id, ord("x")]) == "x"


CONVERSATIONS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "Hello"}],
    [{"role": "user", "content": "  spaces kept \n"}, {"role": "assistant", "content": " and here\n\n"}],
    [
        {"role": "system", "content": "Be brief. 中文"},
        {"role": "user", "content": "'quoted' \"text\" <b>&amp;</b> {{ braces }}"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "And?\n"},
    ],
    [
        {"role": "user", "content": "What is 12 * 34?"},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "That is "},
                {"type": "python", "text": "12 * 34"},
                {"type": "python_output", "text": "408"},
                {"type": "text", "text": ".\n"},
            ],
        },
        {"role": "user", "content": "Thanks"},
        {"role": "assistant", "content": []},
    ],
]


@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_a_conversation_has_the_same_ids(
    tokenizer: Tokenizer, transformers_tokenizer: TokenizersBackend, conversation: list[dict[str, Any]]
) -> None:
    messages = [Message.model_validate(message) for message in conversation]
    found = transformers_tokenizer.apply_chat_template(conversation, tokenize=True, return_dict=False)
    assert found == render(tokenizer, messages)[0]
    if messages[-1].role == "user":
        found = transformers_tokenizer.apply_chat_template(
            conversation, tokenize=True, return_dict=False, add_generation_prompt=True
        )
        assert found == render_prompt(tokenizer, messages)


@pytest.mark.parametrize(
    ("conversation", "said"),
    [
        ([{"role": "system", "content": "alone"}], "give at least one from user"),
        ([{"role": "assistant", "content": "first"}], "user first"),
        ([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}], r"messages\[1\]: user and assistant"),
        ([{"role": "user", "content": "a"}, {"role": "system", "content": "b"}], "may only come first"),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}]}], "text must be a string"),
        ([{"role": "user", "content": "a <|assistant_start|> b"}], r"contains <\|assistant_start\|>"),
        (
            [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}]},
            ],
            "two parts of text in a row",
        ),
        (
            [{"role": "user", "content": "a"}, {"role": "assistant", "content": [{"type": "image", "text": ""}]}],
            "unknown type image",
        ),
    ],
)
def test_what_cannot_be_rendered_alike_is_refused(
    transformers_tokenizer: TokenizersBackend, conversation: list[dict[str, Any]], said: str
) -> None:
    with pytest.raises(TemplateError, match=said):
        transformers_tokenizer.apply_chat_template(conversation, tokenize=False)


def test_golden_conversations_have_the_golden_ids(test_data: Path) -> None:
    golden = Tokenizer.load(test_data / "golden")
    theirs = TokenizersBackend(
        tokenizer_object=tokenizers.Tokenizer.from_str(json.dumps(to_huggingface(golden))),
        chat_template=chat_template(),
    )
    num_refused = 0
    for line in (test_data / "golden" / "conversations.jsonl").read_text().splitlines():
        conversation = json.loads(line)
        if any(name in json.dumps(conversation["messages"]) for name in SPECIAL_TOKENS):
            num_refused += 1
            with pytest.raises(TemplateError, match="only the template may place"):
                theirs.apply_chat_template(conversation["messages"], tokenize=False)
        found = theirs.apply_chat_template(
            conversation["messages"], tokenize=True, return_dict=False, sanitize_control_tokens=True
        )
        assert found == conversation["ids"]
    assert 0 < num_refused < 60


def test_what_was_written_reads_back_the_same(tokenizer: Tokenizer, tmp_path: Path) -> None:
    ours, written = tmp_path / "ours.json", tmp_path / "theirs.json"
    tokenizer.save(ours)
    written.write_text(json.dumps(to_huggingface(tokenizer)))
    assert load_any(written) == load_any(ours) == tokenizer


def test_what_tokenizers_saves_reads_back_the_same(
    tokenizer: Tokenizer, theirs: tokenizers.Tokenizer, tmp_path: Path
) -> None:
    theirs.save(str(tmp_path / "tokenizer.json"))
    assert load_any(tmp_path / "tokenizer.json") == tokenizer


def test_merges_as_text_are_read_too(tokenizer: Tokenizer) -> None:
    values = to_huggingface(tokenizer)
    values["model"]["merges"] = [" ".join(merge) for merge in values["model"]["merges"]]
    assert from_huggingface(values, Path("tokenizer.json")) == tokenizer


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v["model"].update(type="Unigram"), "model of type Unigram"),
        (lambda v: v.update(normalizer={"type": "NFC"}), "normalizer"),
        (lambda v: v["added_tokens"].pop(), "last ids"),
        (lambda v: v["added_tokens"].reverse(), None),
        (lambda v: v["added_tokens"][0].update(id=0), "last ids"),
        (lambda v: v["model"]["merges"].reverse(), "another order"),
        (lambda v: v["model"]["vocab"].pop("a"), "laid out|last ids"),
        (lambda v: v["pre_tokenizer"]["pretokenizers"][1].update(use_regex=True), "another way than by one pattern"),
        (lambda v: v["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(Regex="("), "does not compile"),
        (lambda v: v.pop("pre_tokenizer"), "KeyError"),
        (lambda v: v["model"].update(vocab=[1]), "laid out"),
        (lambda v: v["model"]["vocab"].update({"\u2603": 311}), "laid out"),
    ],
)
def test_a_tokenizer_of_another_kind_is_refused_by_what_differs(
    tokenizer: Tokenizer, change: Any, said: str | None
) -> None:
    values = json.loads(json.dumps(to_huggingface(tokenizer)))
    change(values)
    if said is None:
        assert from_huggingface(values, Path("given.json")) == tokenizer
        return
    with pytest.raises(DataError, match=rf"given\.json.*({said})"):
        from_huggingface(values, Path("given.json"))
