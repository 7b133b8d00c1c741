"""Biases and penalties against the definitions written out in plain Python, and that rows leave each other alone."""

import collections

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nanochat.engine.params import SamplingParams
from nanochat.engine.penalties import Penalties, penalised

V = 20
ids = st.lists(st.integers(0, V - 1), max_size=30)
penalty = st.sampled_from([-2.0, -0.5, 0.0, 0.25, 1.0, 2.0])
wanted = st.builds(
    SamplingParams,
    repetition_penalty=st.sampled_from([0.5, 1.0, 1.25, 3.0]),
    presence_penalty=penalty,
    frequency_penalty=penalty,
    logit_bias=st.dictionaries(st.integers(0, V - 1), st.sampled_from([-100.0, -1.5, 2.0, 100.0]), max_size=4),
)


def _by_the_book(
    logits: list[float], params: SamplingParams, prompt: list[int], generated: list[tuple[int, bool]]
) -> list[float]:
    """Bias; then what vLLM calls repetition, over prompt and answer; then OpenAI's two, over sampled tokens."""
    counts = collections.Counter(token_id for token_id, is_sampled in generated if is_sampled)
    seen = {*prompt, *(token_id for token_id, _ in generated)}
    result = []
    for token_id, value in enumerate(logits):
        value += params.logit_bias.get(token_id, 0.0)
        if token_id in seen:
            value = value / params.repetition_penalty if value > 0 else value * params.repetition_penalty
        value -= params.presence_penalty * (counts[token_id] > 0) + params.frequency_penalty * counts[token_id]
        result.append(value)
    return result


def _table(params: SamplingParams, prompt: list[int], generated: list[tuple[int, bool]]) -> Penalties | None:
    if not params.changes_logits:
        return None
    table = Penalties(params, prompt)
    for token_id, is_sampled in generated:
        table.add(token_id, is_sampled=is_sampled)
    return table


@given(
    rows=st.lists(
        st.tuples(wanted, ids, st.lists(st.tuples(st.integers(0, V - 1), st.booleans()), max_size=30)),
        min_size=1,
        max_size=4,
    ),
    seed=st.integers(0, 1000),
)
def test_every_row_is_changed_by_the_book_and_by_its_own_history(
    rows: list[tuple[SamplingParams, list[int], list[tuple[int, bool]]]], seed: int
) -> None:
    logits = torch.randn((len(rows), V), generator=torch.Generator().manual_seed(seed)) * 3
    before = logits.clone()
    changed = penalised(logits, [_table(*row) for row in rows])
    assert torch.equal(logits, before)  # log probabilities are looked up in them
    for values, found, row in zip(logits.tolist(), changed.tolist(), rows, strict=True):
        # float32 rounds each of four operations; a bias of 100 leaves 1e-5.
        np.testing.assert_allclose(found, _by_the_book(values, *row), rtol=1e-6, atol=3e-5)


def test_rows_that_ask_for_nothing_cost_nothing() -> None:
    logits = torch.randn(3, V)
    assert penalised(logits, [None] * 3) is logits


def test_a_row_is_changed_the_same_bit_for_bit_in_any_company() -> None:
    logits = torch.randn((3, V), generator=torch.Generator().manual_seed(0)) * 5
    kinds = [
        SamplingParams(repetition_penalty=1.1, frequency_penalty=0.3),
        SamplingParams(logit_bias={3: 0.1}),
        SamplingParams(presence_penalty=0.7),
    ]
    tables = [_table(params, [1, 2, 3], [(3, True), (3, True), (4, False)]) for params in kinds]
    together = penalised(logits, tables)
    for row, table in enumerate(tables):
        assert torch.equal(penalised(logits[row : row + 1], [table])[0], together[row])


@pytest.mark.parametrize("num_tokens", [63, 64, 65, 300])
def test_a_long_history_with_many_tokens_is_kept(num_tokens: int) -> None:
    table = Penalties(SamplingParams(frequency_penalty=0.5), [])
    for token_id in [*range(num_tokens), *range(num_tokens)]:
        table.add(token_id, is_sampled=True)
    changed = penalised(torch.zeros((1, 400)), [table])[0]
    assert torch.equal(changed, torch.where(torch.arange(400) < num_tokens, -1.0, 0.0))


def test_presence_counts_once_even_where_frequency_takes_it_back() -> None:
    table = Penalties(SamplingParams(presence_penalty=1.0, frequency_penalty=-1.0), [])
    for _ in range(3):
        table.add(5, is_sampled=True)
    assert penalised(torch.zeros((1, V)), [table])[0, 5] == 2.0
