"""response_format: what may come next, compiled within bounds, and rows that obey it whatever the model would say."""

import json
import random
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from xgrammar import BatchGrammarMatcher

from nanochat.config import GPTConfig
from nanochat.engine import grammar_compiler
from nanochat.engine.choosing import append_sampled
from nanochat.engine.generate import Engine
from nanochat.engine.grammar import constrained
from nanochat.engine.grammar_compiler import GrammarCompiler
from nanochat.engine.params import SamplingParams
from nanochat.engine.sequence import Sequence
from nanochat.errors import InvalidRequest
from nanochat.protocol.generate import (
    ChoiceFormat,
    Delta,
    Finished,
    JsonObjectFormat,
    JsonSchemaFormat,
    RegexFormat,
    ResponseFormat,
    TextFormat,
)
from nanochat.tokenizer.bpe import Tokenizer
from tests.decisive_model import decisive_model

# Bytes, and tokens that run over the borders of what a grammar is made of.
TOKENIZER = Tokenizer([*(bytes([byte]) for byte in range(256)), b'{"', b'": ', b'", "', b"12", b"true}", b"ye", b"no"])
V = TOKENIZER.vocab_size


@pytest.fixture(scope="module")
def compiler() -> Iterator[GrammarCompiler]:
    with GrammarCompiler(timeout_s=20.0) as compiler:
        yield compiler


def schema(value: dict[str, Any]) -> JsonSchemaFormat:
    return JsonSchemaFormat.model_validate({"json_schema": {"name": "test", "schema": value}})


CITY = schema(
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 8},
            "size": {"type": "integer", "minimum": 0, "maximum": 999},
            "kind": {"enum": ["town", "city"]},
        },
        "required": ["name", "size", "kind"],
    }
)


def begin(compiler: GrammarCompiler, response_format: ResponseFormat, params: SamplingParams) -> Sequence:
    sequence = Sequence([TOKENIZER.bos_id], params, TOKENIZER, 2000)
    grammar = compiler.compile(response_format, TOKENIZER)
    assert grammar is not None
    sequence.grammar = grammar.begin()
    return sequence


def noise(seed: int, rows: int = 1) -> torch.Tensor:
    return torch.randn((rows, V), generator=torch.Generator().manual_seed(seed)) * 4


def answer(compiler: GrammarCompiler, response_format: ResponseFormat, seed: int, **params: Any) -> str:
    """What a model of pure noise says."""
    sequence = begin(compiler, response_format, SamplingParams(seed=seed, **params))
    step = 0
    while not sequence.is_finished:
        append_sampled([sequence], noise(1000 * seed + step))
        step += 1
    assert sequence.finish_reason == "stop"
    assert all(token_id < 263 for token_id in sequence.generated_ids[:-1]), "a special token inside"
    assert sequence.generated_ids[-1] == TOKENIZER.special_id("<|assistant_end|>")
    return sequence.text


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("params", [{}, {"temperature": 0}, {"top_k": 3, "repetition_penalty": 1.3}, {"top_p": 0.5}])
def test_noise_becomes_what_was_asked_for(compiler: GrammarCompiler, seed: int, params: dict[str, Any]) -> None:
    found = json.loads(answer(compiler, CITY, seed, **params))
    assert list(found) == ["name", "size", "kind"]
    assert len(found["name"]) <= 8 and 0 <= found["size"] <= 999 and found["kind"] in ("town", "city")
    assert re.fullmatch(
        r"[A-Z]{2}-[0-9]{3,5}", answer(compiler, RegexFormat(regex=r"[A-Z]{2}-[0-9]{3,5}"), seed, **params)
    )
    choices = ["yes", "no", 'say "é"\n', "yesterday"]
    assert answer(compiler, ChoiceFormat(choices=choices), seed, **params) in choices


def test_a_json_object_is_one_with_anything_in_it(compiler: GrammarCompiler) -> None:
    # The model wants: an object, something in it, and an end as soon as may be.
    wishes = torch.full((1, V), -1.0)
    for byte in b'{"a1:[ ]}':
        wishes[0, byte] = random.Random(byte).random()
    sequence = begin(
        compiler, JsonObjectFormat(), SamplingParams(seed=3, logit_bias={TOKENIZER.special_id("<|assistant_end|>"): 50})
    )
    for _ in range(300):
        if not sequence.is_finished:
            append_sampled([sequence], wishes)
    text = sequence.text
    assert text.startswith("{")
    if sequence.finish_reason == "stop":
        assert isinstance(json.loads(text), dict)
    grammar = compiler.compile(JsonObjectFormat(), TOKENIZER)
    assert grammar is not None
    state = grammar.begin()
    for token_id in TOKENIZER.encode('{"a": {"b": [1, -2.5e3, null, "x\\\\n"]}, "c": true}'):
        state.accept(token_id)


def test_the_end_is_allowed_only_where_the_text_is_complete(compiler: GrammarCompiler) -> None:
    grammar = compiler.compile(RegexFormat(regex="ab?"), TOKENIZER)
    assert grammar is not None
    state, end = grammar.begin(), TOKENIZER.special_id("<|assistant_end|>")

    def allowed() -> set[int]:
        return set((constrained(torch.zeros((1, V)), [state])[0] == 0).nonzero()[:, 0].tolist())

    assert allowed() == {ord("a")}
    state.accept(ord("a"))
    assert allowed() == {ord("b"), end}
    state.accept(ord("b"))
    assert allowed() == {end}


def test_a_dead_end_of_a_grammar_ends_its_row_and_no_other(compiler: GrammarCompiler) -> None:
    """A string that must hold a line break, which JSON cannot have as it is."""
    stuck = begin(compiler, schema({"type": "string", "pattern": "a\n"}), SamplingParams(seed=1))
    other = begin(compiler, RegexFormat(regex="[a-z]{9}"), SamplingParams(seed=2))
    for step in range(10):
        running = [row for row in (stuck, other) if not row.is_finished]
        append_sampled(running, noise(step, rows=len(running)))
    assert (stuck.text, stuck.finish_reason) == ('"a', "stop")
    assert re.fullmatch("[a-z]{9}", other.text)


def test_rows_without_a_format_are_left_as_they_are_and_cost_nothing(compiler: GrammarCompiler) -> None:
    logits = noise(1, rows=3)
    assert constrained(logits, [None] * 3) is logits
    grammar = compiler.compile(ChoiceFormat(choices=["yes"]), TOKENIZER)
    assert grammar is not None
    changed = constrained(logits, [None, grammar.begin(), None])
    assert torch.equal(changed[[0, 2]], logits[[0, 2]])
    assert set((changed[1] > -torch.inf).nonzero()[:, 0].tolist()) == {ord("y"), TOKENIZER.encode("ye")[0]}


def test_the_masks_of_all_rows_are_filled_in_one_call(
    compiler: GrammarCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill = BatchGrammarMatcher.batch_fill_next_token_bitmask
    num_rows: list[int] = []

    def counted(self: BatchGrammarMatcher, matchers: list[Any], *arguments: Any) -> None:
        num_rows.append(len(matchers))
        fill(self, matchers, *arguments)

    monkeypatch.setattr(BatchGrammarMatcher, "batch_fill_next_token_bitmask", counted)
    rows = [begin(compiler, RegexFormat(regex="[a-z]{5}"), SamplingParams(seed=seed)) for seed in range(3)]
    plain = Sequence([TOKENIZER.bos_id], SamplingParams(seed=3), TOKENIZER, 2000)
    append_sampled([*rows, plain], noise(1, rows=4))
    assert num_rows == [3]


def test_rows_with_formats_are_the_same_in_any_company(compiler: GrammarCompiler) -> None:
    formats: list[ResponseFormat] = [CITY, RegexFormat(regex="[a-z]{5,9}"), ChoiceFormat(choices=["yes", "nobody"])]
    alone = [answer(compiler, response_format, seed) for seed, response_format in enumerate(formats)]
    rows = [begin(compiler, f, SamplingParams(seed=seed)) for seed, f in enumerate(formats)]
    for step in range(500):
        running = [(seed, row) for seed, row in enumerate(rows) if not row.is_finished]
        if running:
            logits = torch.cat([noise(1000 * seed + step) for seed, _ in running])
            append_sampled([row for _, row in running], logits)
    assert [row.text for row in rows] == alone


def test_a_format_is_compiled_once(compiler: GrammarCompiler) -> None:
    first = compiler.compile(CITY, TOKENIZER)
    assert compiler.compile(CITY.model_copy(deep=True), TOKENIZER) is first
    assert compiler.compile(TextFormat(), TOKENIZER) is None


def test_only_so_many_are_kept(compiler: GrammarCompiler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar_compiler, "_NUM_KEPT", 2)
    first = compiler.compile(RegexFormat(regex="kept1"), TOKENIZER)
    for regex in ("kept2", "kept3"):
        compiler.compile(RegexFormat(regex=regex), TOKENIZER)
    assert compiler.compile(RegexFormat(regex="kept1"), TOKENIZER) is not first


@pytest.mark.parametrize(
    ("response_format", "said"),
    [
        (RegexFormat(regex="(ab"), "parenthesis is not closed"),
        (RegexFormat(regex="a(?=b)"), "Lookahead is not supported"),
        (RegexFormat(regex="a$b"), "should be at the end"),
        (RegexFormat(regex=r"\bab"), "Word boundary is not supported"),
        (schema({"type": "nonsense"}), "nonsense"),
        (schema({"$ref": "#/nowhere"}), "nowhere"),
        (schema({"properties": 5}), "properties must be an object"),
        (schema({"type": "integer", "minimum": 5, "maximum": 3}), "minimum"),
        (schema({"allOf": [{"type": "integer"}, {"minimum": 3}]}), "allOf"),
        (schema({"type": "string", "pattern": "a+", "minLength": 3}), "pattern combined with minLength"),
        (schema({"type": "object", "properties": {"a": {"not": {"type": "string"}}}}), "schema.properties.a has 'not'"),
        (schema({"enum": ["x" * 70_000]}), "bytes; at most 65536"),
    ],
)
def test_what_cannot_be_said_is_refused_with_its_reason(
    compiler: GrammarCompiler, response_format: ResponseFormat, said: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        compiler.compile(response_format, TOKENIZER)
    assert said in caught.value.message
    assert caught.value.param is not None and caught.value.param.startswith("response_format")


def test_one_that_takes_too_long_is_given_up_and_the_next_one_works() -> None:
    with GrammarCompiler(timeout_s=2.0) as compiler:
        assert compiler.compile(RegexFormat(regex="a"), TOKENIZER) is not None
        with pytest.raises(InvalidRequest, match=r"takes over 2 s or too much memory") as caught:
            compiler.compile(RegexFormat(regex=".*" * 4000), TOKENIZER)
        assert caught.value.param == "response_format"
        assert compiler.compile(RegexFormat(regex="b"), TOKENIZER) is not None


def test_a_server_without_xgrammar_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "xgrammar", None)
    with GrammarCompiler() as compiler, pytest.raises(InvalidRequest, match="needs the package xgrammar") as caught:
        compiler.compile(JsonObjectFormat(), TOKENIZER)
    assert caught.value.param == "response_format"


def test_a_format_that_several_ask_for_at_once_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    num_compiled = 0
    compile_one = GrammarCompiler._compile

    def counted(self: GrammarCompiler, source: dict[str, str], tokenizer: Tokenizer) -> Any:
        nonlocal num_compiled
        num_compiled += 1
        return compile_one(self, source, tokenizer)

    monkeypatch.setattr(GrammarCompiler, "_compile", counted)
    with GrammarCompiler(timeout_s=20.0) as compiler, ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: compiler.compile(CITY, TOKENIZER), range(4)))
    assert num_compiled == 1 and len(set(found)) == 1


def test_offline_completions_follow_a_grammar(compiler: GrammarCompiler) -> None:
    config = GPTConfig(sequence_len=64, vocab_size=V, n_layer=1, n_head=1, n_kv_head=1, n_embd=32)
    engine = Engine.of(decisive_model(config, seed=1), TOKENIZER, num_slots=4)
    grammar = compiler.compile(ChoiceFormat(choices=["yes", "no"]), TOKENIZER)
    prompts = [[TOKENIZER.bos_id], [TOKENIZER.bos_id, 7]]
    found = engine.generate(prompts, SamplingParams(temperature=2, seed=1, n=6), grammar)
    assert {choice.text for group in found for choice in group} == {"yes", "no"}
    *told, finished = engine.stream(prompts[0], SamplingParams(seed=2), grammar)
    assert "".join(delta.text for delta in told if isinstance(delta, Delta)) in ("yes", "no")
    assert isinstance(finished, Finished) and finished.finish_reason == "stop"
