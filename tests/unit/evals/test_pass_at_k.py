"""pass@k, beside drawing every subset."""

from collections.abc import Sequence
from itertools import combinations
from types import SimpleNamespace
from typing import Any, cast

import pytest

from nanochat.engine.generate import Engine
from nanochat.engine.params import SamplingParams
from nanochat.evals.pass_at_k import count_right, ks_of, pass_at_k
from nanochat.tasks.counting import Counting
from nanochat.tokenizer.bpe import Tokenizer


@pytest.mark.parametrize("num_right", range(6))
@pytest.mark.parametrize("k", range(1, 6))
def test_it_is_the_share_of_subsets_with_a_right_answer(num_right: int, k: int) -> None:
    subsets = list(combinations([True] * num_right + [False] * (5 - num_right), k))
    expected = sum(any(subset) for subset in subsets) / len(subsets)
    assert pass_at_k(5, num_right, k) == pytest.approx(expected, abs=1e-12)


def test_ks_are_powers_of_two_and_all() -> None:
    assert [ks_of(num) for num in (1, 2, 6, 8)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8]]


def test_right_answers_are_counted_by_question_and_seeds_are_the_questions_own(tokenizer: Tokenizer) -> None:
    task = Counting("held_out")[:70]
    given: list[SamplingParams] = []

    class Scripted:
        """The i-th question gets i % 4 right answers of three, as far as there are so many."""

        def generate(self, prompts: Sequence[list[int]], params: Sequence[SamplingParams]) -> list[list[Any]]:
            first = len(given)
            given.extend(params)
            return [
                [
                    SimpleNamespace(text=task[first + i].answer if j < (first + i) % 4 else "-1")
                    for j in range(params[i].n)
                ]
                for i in range(len(prompts))
            ]

    params = SamplingParams(n=3, seed=7, temperature=0.5)
    counts = count_right(cast(Engine, Scripted()), tokenizer, task, params)
    assert counts == [i % 4 for i in range(70)]
    assert [one.seed for one in given] == list(range(7, 77))
