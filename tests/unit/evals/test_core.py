"""CORE's scoring: a model that knows the answers, one that knows nothing, and one passage at a time."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nanochat.bench.random_model import random_model
from nanochat.config import GPTConfig
from nanochat.engine.backend import BlockStore, Chunk
from nanochat.errors import DataError
from nanochat.evals.core import CoreScore, Example, load_examples, passages, score_task
from nanochat.evals.core_tasks import CORE_TASKS, CoreTask
from nanochat.evals.likelihood import Passage, Scorer
from nanochat.tokenizer.bpe import Tokenizer
from tests.plain_core import plain_outcomes

KINDS = {
    "multiple_choice": CoreTask(label="m", file="m.jsonl", kind="multiple_choice", num_shots=2, random_accuracy=0.25),
    "schema": CoreTask(label="s", file="s.jsonl", kind="schema", num_shots=1, random_accuracy=0.5),
    "language_modeling": CoreTask(label="l", file="l.jsonl", kind="language_modeling", num_shots=3),
}
EXAMPLES: dict[str, list[Example]] = {
    "multiple_choice": [
        {"query": f"{i} and one is", "choices": [str(i + 1), str(i + 2), "no", f"{i} more"], "gold": i % 2}
        for i in range(9)
    ],
    "schema": [
        {"context_options": [f"Ann {i} had", f"Bob {i} had"], "continuation": "a hat.", "gold": i % 2} for i in range(9)
    ],
    "language_modeling": [{"context": f"{i} and one is ", "continuation": str(i + 1)} for i in range(9)],
}


class Lookup:
    """Knows what comes after each beginning of some texts, and elsewhere that token 0 does."""

    num_slots, max_len, max_chunk, step_tokens, weights, num_torch_threads = 4, 4096, 64, 1024, "none", None

    def __init__(self, known: Sequence[Passage], vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._next = {tuple(ids[:end]): ids[end] for ids, start in known for end in range(start, len(ids))}
        self._slots: dict[int, list[int]] = {}

    def forward_ends(self, chunks: Sequence[Chunk], counts: Sequence[int]) -> Tensor:
        rows = []
        for chunk, count in zip(chunks, counts, strict=True):
            held = [*self._slots.get(chunk.slot, [])[: chunk.start], *chunk.token_ids]
            self._slots[chunk.slot] = held
            for end in range(len(held) - count + 1, len(held) + 1):
                rows.append(torch.zeros(self._vocab_size))
                rows[-1][self._next.get(tuple(held[:end]), 0)] = 10.0
        return torch.stack(rows) if rows else torch.empty(0, self._vocab_size)

    def forward(self, chunks: Sequence[Chunk]) -> Tensor:
        raise NotImplementedError

    def forward_all(self, chunk: Chunk) -> Tensor:
        raise NotImplementedError

    def copy_slot(self, source: int, target: int, length: int) -> None:
        raise NotImplementedError

    def block_bytes(self) -> int:
        raise NotImplementedError

    def new_block_store(self, num_blocks: int) -> BlockStore:
        raise NotImplementedError


def gold_passages(tokenizer: Tokenizer, task: CoreTask, examples: Sequence[Example]) -> list[Passage]:
    gold = []
    for index, example in enumerate(examples):
        options = passages(tokenizer, task, examples, index, Lookup.max_len)
        gold += [] if options is None else [options[example.get("gold", 0)]]
    return gold


def know(tokenizer: Tokenizer, task: CoreTask, examples: Sequence[Example]) -> CoreScore:
    backend = Lookup(gold_passages(tokenizer, task, examples), tokenizer.vocab_size)
    return score_task(Scorer(backend, tokenizer.vocab_size), tokenizer, task, examples)


@pytest.mark.parametrize("kind", KINDS)
def test_who_knows_the_answers_has_all_right(kind: str, tokenizer: Tokenizer) -> None:
    score = know(tokenizer, KINDS[kind], EXAMPLES[kind])
    assert score.outcomes == (True,) * 9
    assert (score.accuracy, score.centered, score.stderr) == (1.0, 1.0, 0.0)


@pytest.mark.parametrize("kind", ["multiple_choice", "schema"])
def test_who_knows_answers_to_be_wrong_has_none_right(kind: str, tokenizer: Tokenizer) -> None:
    """Else a scoring that always says yes would pass the test above."""
    task, examples = KINDS[kind], EXAMPLES[kind]
    gold = [passages(tokenizer, task, examples, i, Lookup.max_len) for i in range(9)]
    wrong = [options[1 - examples[i]["gold"]] for i, options in enumerate(gold) if options is not None]
    backend = Lookup(wrong, tokenizer.vocab_size)
    score = score_task(Scorer(backend, tokenizer.vocab_size), tokenizer, task, examples)
    assert score.outcomes == (False,) * 9 and score.centered < 0


@pytest.mark.parametrize("task", CORE_TASKS, ids=lambda task: task.label)
def test_the_benchmark_itself_can_be_known(task: CoreTask, test_data: Path) -> None:
    tokenizer = Tokenizer.load(test_data / "golden" / "tokenizer.json")
    if not (test_data / "core" / task.file).is_file():
        pytest.skip(f"no data for {task.label}")
    score = know(tokenizer, task, load_examples(task, test_data / "core", 12))
    assert score.accuracy == 1.0 and score.num_examples > 0


@pytest.fixture(scope="module")
def untrained() -> list[Scorer]:
    """Eight models of random weights: one has its likings, such as always yes."""
    config = GPTConfig(
        sequence_len=2048, vocab_size=512, n_layer=1, n_head=1, n_kv_head=1, n_embd=32, window_pattern="L"
    )
    return [Scorer.of(random_model(config, seed=seed)) for seed in range(8)]


@pytest.mark.parametrize("task", CORE_TASKS, ids=lambda task: task.label)
def test_who_knows_nothing_has_the_accuracy_of_chance(task: CoreTask, untrained: list[Scorer], test_data: Path) -> None:
    """Guesses are right once in as many options as there are, and no text is guessed word by word.

    The mean of eight models is within four standard errors, by how the eight differ and not less than dice would.
    """
    if not (test_data / "core" / task.file).is_file():
        pytest.skip(f"no data for {task.label}")
    tokenizer = Tokenizer.load(test_data / "golden" / "tokenizer.json")
    examples = load_examples(task, test_data / "core", 12)
    if task.kind == "language_modeling":
        assert score_task(untrained[0], tokenizer, task, examples).accuracy == 0
        return
    chance = sum(1 / len(each.get("choices", each.get("context_options", ()))) for each in examples) / len(examples)
    accuracies = torch.tensor([score_task(one, tokenizer, task, examples).accuracy for one in untrained])
    dice = math.sqrt(chance * (1 - chance) / len(examples))
    stderr = max(float(accuracies.std()), dice) / math.sqrt(len(untrained))
    assert abs(float(accuracies.mean()) - chance) < 4 * stderr


@pytest.mark.parametrize("kind", KINDS)
def test_outcomes_are_those_of_one_passage_at_a_time(kind: str, tokenizer: Tokenizer) -> None:
    config = GPTConfig(sequence_len=96, vocab_size=tokenizer.vocab_size, n_layer=2, n_head=2, n_kv_head=1, n_embd=32)
    model = random_model(config)
    task, examples = KINDS[kind], EXAMPLES[kind]
    score = score_task(Scorer.of(model), tokenizer, task, examples)
    assert list(score.outcomes) == plain_outcomes(model, tokenizer, task, examples)


def test_a_passage_too_long_loses_its_left_end(tokenizer: Tokenizer) -> None:
    task, examples = KINDS["multiple_choice"], EXAMPLES["multiple_choice"]
    whole = passages(tokenizer, task, examples, 0, 1000)
    cut = passages(tokenizer, task, examples, 0, 5)
    assert whole is not None and cut is not None
    for passage, shorter in zip(whole, cut, strict=True):
        assert shorter.token_ids == passage.token_ids[-5:]
        assert len(shorter.token_ids) - shorter.start == min(4, len(passage.token_ids) - passage.start)


def test_an_example_whose_tokens_do_not_line_up_counts_in_no_accuracy() -> None:
    merging = Tokenizer([*(bytes([byte]) for byte in range(256)), b"is"])
    task = CoreTask(label="l", file="l.jsonl", kind="language_modeling", num_shots=0, delimiter="")
    examples = [{"context": "i", "continuation": "s"}, {"context": "a", "continuation": "b"}]
    score = know(merging, task, examples)
    assert score.outcomes == (None, True)
    assert (score.num_excluded, score.num_examples, score.accuracy) == (1, 1, 1.0)


def test_fewer_examples_than_shots_are_shown_all_others(tokenizer: Tokenizer) -> None:
    task = CoreTask(label="m", file="m.jsonl", kind="multiple_choice", num_shots=10)
    score = know(tokenizer, task, EXAMPLES["multiple_choice"][:3])
    assert score.outcomes == (True,) * 3


def test_the_error_is_that_of_a_share() -> None:
    score = CoreScore(outcomes=(True, False, None, True, True), random_accuracy=0.5, seconds=1.0)
    assert (score.accuracy, score.centered) == (0.75, 0.5)
    assert score.stderr == pytest.approx(math.sqrt(0.75 * 0.25 / 4))
    assert score.centered_stderr == pytest.approx(2 * score.stderr)


def test_examples_are_shuffled_alike_every_time(tmp_path: Path) -> None:
    (tmp_path / "l.jsonl").write_text("".join(json.dumps({"context": i}) + "\n" for i in range(50)))
    first = load_examples(KINDS["language_modeling"], tmp_path, 5)
    assert first == load_examples(KINDS["language_modeling"], tmp_path)[:5]
    assert [example["context"] for example in first] != [0, 1, 2, 3, 4]


@pytest.mark.parametrize("line", ["{", "[1]", '{"context": "\\ud800"}'])
def test_a_line_that_is_no_example_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "l.jsonl").write_text('{"context": "a", "continuation": "b"}\n\n' + line + "\n")
    with pytest.raises(DataError, match=r"l\.jsonl, line 3 "):
        load_examples(KINDS["language_modeling"], tmp_path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"l\.jsonl cannot be read"):
        load_examples(KINDS["language_modeling"], tmp_path)
