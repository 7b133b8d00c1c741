"""Draws against a plain reference, and the independence of rows."""

import collections
import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nanochat.engine.params import SamplingParams
from nanochat.engine.sampling import lookup_logprobs, sample

V = 300


@pytest.fixture
def logits() -> Tensor:
    return torch.randn((6, V), generator=torch.Generator().manual_seed(1)) * 3


def _allowed(row: list[float], params: SamplingParams) -> dict[int, float]:
    """The distribution by the book: temperature, the top_k likeliest, of them the smallest set that holds top_p, of
    those the ones at least min_p as likely as the likeliest."""
    scaled = [value / params.temperature for value in row]
    largest = max(scaled)
    weights = {token_id: math.exp(value - largest) for token_id, value in enumerate(scaled)}
    order = sorted(weights, key=lambda token_id: -weights[token_id])[: params.top_k or None]
    total = math.fsum(weights[token_id] for token_id in order)
    kept: dict[int, float] = {}
    held = 0.0
    for token_id in order:
        if held >= params.top_p:
            break
        kept[token_id] = weights[token_id] / total
        held += kept[token_id]
    kept = {token_id: p for token_id, p in kept.items() if weights[token_id] >= params.min_p}
    norm = math.fsum(kept.values())
    return {token_id: p / norm for token_id, p in kept.items()}


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=1.0),
        SamplingParams(temperature=0.5),
        SamplingParams(temperature=1.3, top_k=5),
        SamplingParams(temperature=1.0, top_p=0.8),
        SamplingParams(temperature=0.9, top_k=20, top_p=0.6),
        SamplingParams(temperature=2.0, top_p=0.999),  # more tokens than are looked at first
        SamplingParams(temperature=1.1, min_p=0.02),
        SamplingParams(temperature=2.0, min_p=1e-4),
        SamplingParams(temperature=0.9, top_k=30, top_p=0.9, min_p=0.05),
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
        SamplingParams(temperature=2.0, top_p=0.999),
        SamplingParams(min_p=0.1),
        SamplingParams(temperature=0.9, top_k=3, min_p=0.1),
    ]
    logits = torch.cat([logits, logits[:3]])
    for _ in range(50):
        uniforms = [rng.random() for _ in kinds]
        alone = [sample(logits[b : b + 1], [kinds[b]], [uniforms[b]])[0] for b in range(9)]
        order = rng.sample(range(9), rng.randint(2, 9))
        together = sample(logits[order], [kinds[b] for b in order], [uniforms[b] for b in order])
        assert together == [alone[b] for b in order]


@pytest.mark.parametrize(("size", "temperature"), [(265, 0.7), (4096, 1.0), (32768, 0.8)])
def test_probabilities_are_the_same_to_the_last_bit_in_any_company(size: int, temperature: float) -> None:
    """Numbers just below and above where the cumulative sum passes from a token to the next, found by bisection alone,
    part the same two tokens beside 31 others."""
    logits = torch.randn((32, size), generator=torch.Generator().manual_seed(size)) * 3
    params = SamplingParams(temperature=temperature)
    for row in (0, 31):
        alone = logits[row : row + 1]
        low, high = 0.0, 0.9
        first = sample(alone, [params], [low])[0]
        while math.nextafter(low, 1.0) < high and high - low > 2**-53:
            middle = (low + high) / 2
            if sample(alone, [params], [middle])[0] == first:
                low = middle
            else:
                high = middle
        others = [random.Random(row).random() for _ in range(31)]
        for uniform in (low, high):
            uniforms = [*others[:row], uniform, *others[row:]]
            assert sample(logits, [params] * 32, uniforms)[row] == sample(alone, [params], [uniform])[0]


CHI_SQUARE = [
    SamplingParams(temperature=0.8),
    SamplingParams(temperature=1.0, top_k=40),
    SamplingParams(temperature=1.2, top_p=0.9),
    SamplingParams(temperature=1.5, top_p=0.98),  # a wide nucleus: the whole row is sorted
    SamplingParams(temperature=1.0, min_p=0.01),
    SamplingParams(temperature=1.0, top_k=100, top_p=0.95),
    SamplingParams(temperature=1.0, top_k=100, min_p=0.02),
    SamplingParams(temperature=1.0, top_p=0.9, min_p=0.02),
    SamplingParams(temperature=1.3, top_k=150, top_p=0.9, min_p=0.01),
]


@pytest.mark.parametrize("params", CHI_SQUARE, ids=repr)
def test_draws_pass_a_chi_square_test_against_the_exact_probabilities(params: SamplingParams) -> None:
    """4096 tokens, so that a draw goes through blocks; independent random numbers, as in service."""
    row = torch.randn((1, 4096), generator=torch.Generator().manual_seed(3)) * 3
    expected = _allowed(row[0].tolist(), params)
    rng = random.Random(11)
    num_draws = 10_000
    drawn: collections.Counter[int] = collections.Counter()
    for _ in range(num_draws // 500):
        drawn.update(sample(row.expand(500, -1), [params] * 500, [rng.random() for _ in range(500)]))
    assert drawn.keys() <= expected.keys()
    # Tokens expected fewer than ten times share a bin, as the test supposes.
    common = [token_id for token_id, p in expected.items() if p * num_draws >= 10]
    bins = [(drawn[token_id], expected[token_id] * num_draws) for token_id in common]
    rest = num_draws - sum(count for count, _ in bins)
    bins.append((rest, max(1e-9, num_draws - sum(mean for _, mean in bins))))
    chi_square = sum((count - mean) ** 2 / mean for count, mean in bins if mean >= 1)
    freedom = len(common)
    # Wilson and Hilferty: a fair sample is above 4.5 standard deviations once in 300,000 times.
    deviation = ((chi_square / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom))
    assert deviation < 4.5


@settings(deadline=None)
@given(
    values=st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=600),
    params=st.builds(
        SamplingParams,
        temperature=st.floats(0.05, 2),
        top_k=st.integers(0, 200),
        top_p=st.floats(0.01, 1),
        min_p=st.sampled_from([0.0, 1e-6, 0.01, 0.3, 1.0]),
    ),
    uniform=st.floats(0, 1, exclude_max=True),
)
def test_a_token_is_drawn_where_the_cumulative_distribution_by_the_book_says(
    values: list[float], params: SamplingParams, uniform: float
) -> None:
    token_id = sample(torch.tensor([values]), [params], [uniform])[0]
    # At a border either side is right, within what float32 can tell; and of equal tokens any.
    eased = SamplingParams(
        temperature=params.temperature,
        top_k=params.top_k,
        top_p=min(1.0, params.top_p + 1e-5),
        min_p=params.min_p * (1 - 1e-5),
    )
    allowed = _allowed(values, eased)
    assert values[token_id] >= min(values[other] for other in allowed) - 1e-5
    if params.top_k == 0 and params.top_p == 1 and params.min_p == 0:
        weights = [allowed.get(other, 0.0) for other in range(len(values))]
        before = math.fsum(weights[:token_id])
        assert before - 1e-5 <= uniform <= before + weights[token_id] + 1e-5


def test_a_row_of_no_numbers_does_not_end_the_batch(logits: Tensor) -> None:
    """A model that overflows in one row must not fail the others."""
    broken = logits.clone()
    broken[2] = float("nan")
    for params in (SamplingParams(), SamplingParams(top_k=5), SamplingParams(top_p=0.9), SamplingParams(temperature=0)):
        found = sample(broken, [params] * 6, [0.5] * 6)
        whole = sample(logits, [params] * 6, [0.5] * 6)
        assert [found[b] for b in (0, 1, 3, 4, 5)] == [whole[b] for b in (0, 1, 3, 4, 5)]
        assert 0 <= found[2] < V


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-53])
def test_the_ends_of_the_unit_interval_give_tokens_that_are_allowed(logits: Tensor, uniform: float) -> None:
    masked = logits.clone()
    masked[:, :130] = masked[:, 140:150] = masked[:, -50:] = float("-inf")  # the first block as a whole
    for params in (SamplingParams(), SamplingParams(top_k=10), SamplingParams(top_p=0.5), SamplingParams(min_p=1e-9)):
        for row, token_id in enumerate(sample(masked, [params] * 6, [uniform] * 6)):
            assert masked[row, token_id] > float("-inf")


def test_the_rarest_tokens_keep_their_shares() -> None:
    """One token holds all but 1e-5. float32 tells numbers near 1 apart by 6e-8; a block of 128 others holds 4e-8."""
    size, share, num_draws = 32768, 1e-5, 2560
    row = torch.full((1, size), math.log(share / (size - 1)))
    row[0, 0] = math.log(1 - share)
    uniforms = [1 - share + share * (i + 0.5) / num_draws for i in range(num_draws)]
    drawn = collections.Counter(
        token_id // 128
        for start in range(0, num_draws, 256)
        for token_id in sample(row.expand(256, size), [SamplingParams()] * 256, uniforms[start : start + 256])
    )
    # The first and last blocks may be off by what float32 rounds the first token's probability by.
    assert all(abs(drawn[block] - 10) <= 2 for block in range(2, 254))


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


def test_rows_may_ask_for_log_probabilities_in_any_company(logits: Tensor) -> None:
    """Equally likely tokens keep their order whatever the others ask for."""
    tied = (logits / 4).round()
    for num_top in range(1, 20):
        alone = lookup_logprobs(tied, [3] * 6, num_top)
        beside = lookup_logprobs(tied, [3] * 6, 20)
        assert [choice.top for choice in alone] == [choice.top[:num_top] for choice in beside]
        assert [choice.logprob for choice in alone] == [choice.logprob for choice in beside]
