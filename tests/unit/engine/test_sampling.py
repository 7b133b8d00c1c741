"""Draws against a plain reference, and the independence of rows."""

import math
import random

import pytest
import torch
from torch import Tensor

from nanochat.engine.params import SamplingParams
from nanochat.engine.sampling import lookup_logprobs, sample

V = 300


@pytest.fixture
def logits() -> Tensor:
    return torch.randn((6, V), generator=torch.Generator().manual_seed(1)) * 3


def _allowed(row: list[float], params: SamplingParams) -> dict[int, float]:
    """The distribution by the book: temperature, the top_k likeliest, of them the smallest set that holds top_p."""
    scaled = [value / params.temperature for value in row]
    largest = max(scaled)
    weights = {token_id: math.exp(value - largest) for token_id, value in enumerate(scaled)}
    order = sorted(weights, key=lambda token_id: -weights[token_id])[: params.top_k or None]
    total = sum(weights[token_id] for token_id in order)
    kept: dict[int, float] = {}
    for token_id in order:
        if sum(kept.values()) >= params.top_p:
            break
        kept[token_id] = weights[token_id] / total
    norm = sum(kept.values())
    return {token_id: p / norm for token_id, p in kept.items()}


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=1.0),
        SamplingParams(temperature=0.5),
        SamplingParams(temperature=1.3, top_k=5),
        SamplingParams(temperature=1.0, top_p=0.8),
        SamplingParams(temperature=0.9, top_k=20, top_p=0.6),
    ],
)
def test_frequencies_follow_the_distribution_by_the_book(logits: Tensor, params: SamplingParams) -> None:
    num_draws = 4000
    # Evenly spread numbers meet each part of the distribution as often as its size says, to one draw.
    uniforms = [(i + 0.5) / num_draws for i in range(num_draws)]
    drawn = sample(logits[:1].expand(num_draws, V), [params] * num_draws, uniforms)
    expected = _allowed(logits[0].tolist(), params)
    for token_id in range(V):
        assert abs(drawn.count(token_id) - num_draws * expected.get(token_id, 0.0)) <= 1.5


def test_temperature_zero_takes_the_largest(logits: Tensor) -> None:
    params = SamplingParams(temperature=0, top_k=3, top_p=0.1)
    assert sample(logits, [params] * 6, [0.99] * 6) == logits.argmax(dim=-1).tolist()


def test_a_temperature_near_zero_takes_the_largest_and_does_not_overflow(logits: Tensor) -> None:
    params = SamplingParams(temperature=1e-300)
    assert sample(logits, [params] * 6, [0.999999] * 6) == logits.argmax(dim=-1).tolist()


def test_top_p_near_zero_keeps_the_likeliest(logits: Tensor) -> None:
    assert sample(logits, [SamplingParams(top_p=1e-12)] * 6, [0.999] * 6) == logits.argmax(dim=-1).tolist()


def test_a_row_draws_the_same_in_any_company(logits: Tensor) -> None:
    rng = random.Random(0)
    kinds = [
        SamplingParams(),
        SamplingParams(temperature=0),
        SamplingParams(top_k=7),
        SamplingParams(top_k=200, temperature=0.7),
        SamplingParams(top_p=0.9),
        SamplingParams(top_k=50, top_p=0.5),
    ]
    for _ in range(50):
        uniforms = [rng.random() for _ in kinds]
        alone = [sample(logits[b : b + 1], [kinds[b]], [uniforms[b]])[0] for b in range(6)]
        order = rng.sample(range(6), 6)
        together = sample(logits[order], [kinds[b] for b in order], [uniforms[b] for b in order])
        assert together == [alone[b] for b in order]


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-53])
def test_the_ends_of_the_unit_interval_give_tokens_that_are_allowed(logits: Tensor, uniform: float) -> None:
    masked = logits.clone()
    masked[:, -50:] = float("-inf")
    for params in (SamplingParams(), SamplingParams(top_k=10), SamplingParams(top_p=0.5)):
        assert all(token_id < V - 50 for token_id in sample(masked, [params] * 6, [uniform] * 6))


def test_a_vocabulary_smaller_than_the_largest_top_k_works() -> None:
    assert sample(torch.tensor([[0.0, 1.0, -1.0]]), [SamplingParams(top_k=200)], [0.0]) == [1]


def test_log_probabilities_are_those_before_temperature(logits: Tensor) -> None:
    ids = [3, 10, 4, 0, 299, 7]
    choices = lookup_logprobs(logits, ids, 2)
    reference = logits.double().log_softmax(-1)
    for b, choice in enumerate(choices):
        assert choice.token_id == ids[b]
        assert choice.logprob == pytest.approx(reference[b, ids[b]].item(), abs=1e-5)
        assert [token_id for token_id, _ in choice.top] == reference[b].topk(2).indices.tolist()
        assert choice.top[0][1] >= choice.top[1][1]
