"""The end of a step: what each row asked for, from one batch of logits."""

import collections
import random

import pytest
import torch
from torch import Tensor

from nanochat.engine.choosing import append_sampled
from nanochat.engine.params import SamplingParams
from nanochat.engine.sequence import Sequence
from nanochat.errors import InvalidRequest
from nanochat.protocol.generate import Delta
from nanochat.tokenizer.bpe import Tokenizer

V = 265
KINDS = [
    SamplingParams(seed=1, temperature=1.5),
    SamplingParams(seed=2, temperature=0, repetition_penalty=1.5),
    SamplingParams(seed=3, top_k=20, frequency_penalty=0.5, logprobs=2),
    SamplingParams(seed=4, top_p=0.9, presence_penalty=-0.5, logprobs=0),
    SamplingParams(seed=5, min_p=0.05, logit_bias={65: 5.0}),
    SamplingParams(seed=6, temperature=0, logprobs=20),
]


@pytest.fixture
def logits() -> Tensor:
    logits = torch.randn((40, len(KINDS), V), generator=torch.Generator().manual_seed(1)) * 3
    logits[:, :, 256:] = -30  # special tokens would end a row or make it wait
    return logits


def _sequences(tokenizer: Tokenizer) -> list[Sequence]:
    return [Sequence([256, 65, 66], params, tokenizer, 1000) for params in KINDS]


def test_rows_are_the_same_in_any_company(logits: Tensor, tokenizer: Tokenizer) -> None:
    """Their tokens and their log probabilities, over many steps, beside any of the others."""
    together, alone, some = (_sequences(tokenizer) for _ in range(3))
    rng = random.Random(0)
    for step in logits:
        append_sampled(together, step)
        for row, sequence in enumerate(alone):
            append_sampled([sequence], step[row : row + 1])
        left = list(range(len(KINDS)))
        rng.shuffle(left)
        while left:  # groups of any size and order
            rows = [left.pop() for _ in range(rng.randint(1, len(left)))]
            append_sampled([some[row] for row in rows], step[rows])
        for sequences in zip(together, alone, some, strict=True):
            assert len({sequence.generated_ids[-1] for sequence in sequences}) == 1
            first, *others = (
                [
                    logprob
                    for event in sequence.take_events()
                    if isinstance(event, Delta)
                    for logprob in event.logprobs or []
                ]
                for sequence in sequences
            )
            assert others == [first, first]


def test_log_probabilities_are_those_of_the_model_and_not_of_what_was_changed(tokenizer: Tokenizer) -> None:
    step = torch.randn((1, V), generator=torch.Generator().manual_seed(2))
    params = SamplingParams(temperature=0, logit_bias={65: 100.0}, logprobs=1)
    sequence = Sequence([256], params, tokenizer, 100)
    append_sampled([sequence], step)
    (event,) = sequence.take_events()
    assert isinstance(event, Delta) and event.logprobs is not None
    assert sequence.generated_ids == [65]
    reference = step[0].double().log_softmax(-1)
    assert event.logprobs[0].logprob == pytest.approx(reference[65].item(), abs=1e-5)
    assert event.logprobs[0].top[0].token_id == reference.argmax()


def test_a_bias_of_minus_100_bans_a_token_and_of_100_forces_it(tokenizer: Tokenizer) -> None:
    flat = torch.zeros((2, V))
    banned = Sequence([256], SamplingParams(seed=1, logit_bias=dict.fromkeys(range(200), -100.0)), tokenizer, 1000)
    forced = Sequence([256], SamplingParams(seed=1, logit_bias={97: 100.0}), tokenizer, 1000)
    drawn: collections.Counter[int] = collections.Counter()
    for _ in range(200):
        if banned.is_finished:  # a special token may end it
            banned = Sequence([256], banned.params, tokenizer, 1000)
        append_sampled([banned, forced], flat)
        drawn[banned.generated_ids[-1]] += 1
        banned.expression = None
    assert min(drawn) >= 200
    assert set(forced.generated_ids) == {97}


def test_a_frequency_penalty_keeps_a_greedy_row_from_repeating_itself(tokenizer: Tokenizer) -> None:
    step = torch.zeros((1, V))
    step[0, 97], step[0, 98] = 3.0, 2.0
    plain, penalised = (
        Sequence([256], SamplingParams(temperature=0, **more), tokenizer, 100)
        for more in ({}, {"frequency_penalty": 1.5})
    )
    for _ in range(4):
        append_sampled([plain], step)
        append_sampled([penalised], step)
    assert plain.text == "aaaa"
    assert penalised.text == "abab"  # 3 > 2, then 1.5 < 2, then 1.5 > 0.5, then 0 < 0.5


def test_what_a_tool_forced_is_repeated_text_but_no_choice_of_the_model(tokenizer: Tokenizer) -> None:
    params = SamplingParams(temperature=0, frequency_penalty=2.0)
    sequence = Sequence([256], params, tokenizer, 100)
    for token in (tokenizer.special_id("<|python_start|>"), ord("1"), tokenizer.special_id("<|python_end|>")):
        sequence.append(token)
    sequence.answer("7")
    step = torch.zeros((1, V))
    step[0, ord("7")] = 1.0
    append_sampled([sequence], step)
    assert sequence.generated_ids[-1] == ord("7")


def test_a_step_that_only_took_prompts_in_chooses_nothing() -> None:
    append_sampled([], torch.zeros((0, V)))


def test_a_bias_of_a_token_that_does_not_exist_is_refused(tokenizer: Tokenizer) -> None:
    for token_id in (-1, V):
        with pytest.raises(
            InvalidRequest, match=rf"logit_bias has token {token_id}; the vocabulary has ids 0 to 264"
        ) as caught:
            Sequence([256], SamplingParams(logit_bias={token_id: 1.0}), tokenizer, 100)
        assert caught.value.param == "logit_bias"
