"""Likelihoods against whole logits of the plain model, whatever is shared, cut into pieces or computed beside it."""

import math
import random
from collections.abc import Callable, Sequence

import pytest
import torch

from nanochat.config import GPTConfig
from nanochat.engine.backend import Backend, Chunk
from nanochat.engine.native_backend import NativeBackend
from nanochat.engine.torch_backend import TorchBackend
from nanochat.evals import likelihood
from nanochat.evals.likelihood import Likelihood, Passage, Scorer, common_length
from nanochat.model.gpt import GPT
from tests.decisive_model import decisive_model

# A window much shorter than a row; then rests longer than a native step of 256 tokens.
CONFIG = GPTConfig(sequence_len=512, vocab_size=300, n_layer=2, n_head=2, n_kv_head=1, n_embd=32, window_pattern="SL")
BACKENDS: dict[str, Callable[[GPT], Backend]] = {
    "native": lambda model: NativeBackend(model, num_slots=3, max_len=CONFIG.sequence_len, weights="fp32"),
    "torch": lambda model: TorchBackend(model, num_slots=3, max_len=CONFIG.sequence_len),
}


@pytest.fixture(scope="module")
def model() -> GPT:
    return decisive_model(CONFIG, seed=5)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, model: GPT) -> Backend:
    return BACKENDS[request.param](model)


def plain(model: GPT, passage: Passage) -> Likelihood:
    """By float64 log-softmax of the logits of the whole row."""
    ids, start = torch.tensor(passage.token_ids), passage.start
    with torch.inference_mode():
        logits = model(ids[None])[0, start - 1 : -1].double()
    log_probs = logits.log_softmax(dim=-1).gather(1, ids[start:, None])
    return Likelihood(-float(log_probs.sum()), len(ids) - start, bool((logits.argmax(dim=-1) == ids[start:]).all()))


def check(model: GPT, scorer: Scorer, groups: Sequence[Sequence[Passage]]) -> None:
    for group, found in zip(groups, scorer.score(groups), strict=True):
        assert len(found) == len(group)
        for passage, one in zip(group, found, strict=True):
            expected = plain(model, passage)
            assert (one.num_tokens, one.is_greedy) == (expected.num_tokens, expected.is_greedy)
            # Logits of float32 are right to 1e-5 or so, each.
            assert one.nats == pytest.approx(expected.nats, abs=3e-5 * max(1, one.num_tokens))


def draw(rng: random.Random, num_tokens: int) -> list[int]:
    return [rng.randrange(CONFIG.vocab_size) for _ in range(num_tokens)]


def test_groups_of_any_shape_get_what_whole_rows_say(model: GPT, backend: Backend) -> None:
    rng = random.Random(0)
    groups = []
    for num_shared in (0, 1, 20, 300, 350):
        shared = [3, *draw(rng, num_shared)]
        rests = [draw(rng, rng.choice([1, 2, 30, 130])) for _ in range(rng.choice([1, 2, 4]))]
        groups.append([Passage(shared + rest, len(shared)) for rest in rests])
        groups.append([Passage(shared + rest, max(1, len(shared) - 7)) for rest in rests])  # judged before they part
        groups.append([Passage(draw(rng, 9) + shared + rest, 9) for rest in rests])  # nothing shared
    check(model, Scorer(backend, CONFIG.vocab_size), groups)


def test_rests_longer_than_a_slot_may_go_back_are_computed_whole(model: GPT, backend: Backend) -> None:
    rng = random.Random(1)
    shared = draw(rng, 200)
    group = [Passage(shared + draw(rng, num_rest), 200) for num_rest in (300, 10, 280)]
    check(model, Scorer(backend, CONFIG.vocab_size), [group])


def test_a_step_has_no_more_logits_than_memory_is_meant_for(
    model: GPT, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(likelihood, "LOGITS_AT_ONCE", 7 * CONFIG.vocab_size)
    counts = []
    forward_ends = backend.forward_ends

    def counted(chunks: Sequence[Chunk], wanted: Sequence[int]) -> torch.Tensor:
        counts.append(sum(wanted))
        return forward_ends(chunks, wanted)

    monkeypatch.setattr(backend, "forward_ends", counted)
    rng = random.Random(2)
    groups = [[Passage(draw(rng, 40), 1), Passage(draw(rng, 9), 3)] for _ in range(5)]
    check(model, Scorer(backend, CONFIG.vocab_size), groups)
    assert max(counts) == 7


def test_what_is_shared_is_computed_once(model: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = BACKENDS["native"](model)
    computed = []
    forward_ends = backend.forward_ends

    def counted(chunks: Sequence[Chunk], wanted: Sequence[int]) -> torch.Tensor:
        computed.append(sum(len(chunk.token_ids) for chunk in chunks))
        return forward_ends(chunks, wanted)

    monkeypatch.setattr(backend, "forward_ends", counted)
    shared = draw(random.Random(3), 100)
    scorer = Scorer(backend, CONFIG.vocab_size)
    scorer.score([[Passage([*shared, 1, 2, 3], 100), Passage([*shared, 4, 5], 100)]])
    # 99 tokens, then from the hundredth on what predicts each rest: the last token of a passage is never computed.
    assert sum(computed) == 99 + 3 + 2
    computed.clear()
    scorer.score([[Passage([*shared, letter], 100) for letter in range(4)]])
    assert sum(computed) == 100  # four letters at one place


def test_passages_get_the_same_bits_in_any_company(model: GPT) -> None:
    rng = random.Random(4)
    groups = [[Passage(draw(rng, rng.randrange(2, 200)), 1)] for _ in range(8)]
    scorer = Scorer(BACKENDS["native"](model), CONFIG.vocab_size)
    alone = [scorer.score([group])[0] for group in groups]
    assert scorer.score(groups) == alone
    assert scorer.score(groups[::-1]) == alone[::-1]


def test_a_model_in_training_is_scored_as_it_stands(model: GPT) -> None:
    changing = decisive_model(CONFIG, seed=6)
    scorer = Scorer.of(changing)
    passage = Passage(draw(random.Random(5), 20), 5)
    before = scorer.score([[passage]])[0][0]
    with torch.no_grad():
        changing.head.weight.mul_(0.5)
    after = scorer.score([[passage]])[0][0]
    assert after.nats == pytest.approx(plain(changing, passage).nats, abs=1e-3) != before.nats


def test_nothing_to_judge_is_certain_and_has_no_mean(backend: Backend) -> None:
    scorer = Scorer(backend, CONFIG.vocab_size)
    ((found,), none) = scorer.score([[Passage([1, 2], 2)], []])
    assert found == Likelihood(0.0, 0, True) and math.isnan(found.mean_nats)
    assert none == []


def test_a_common_beginning_ends_where_rows_differ_or_the_shortest_ends() -> None:
    assert common_length([[1, 2, 3], [1, 2, 4]]) == 2
    assert common_length([[1, 2], [1, 2, 4]]) == 2
    assert common_length([[2], [1]]) == 0
