"""Bits per byte against sums by hand."""

import math

import pytest
import torch
from torch import Tensor

from nanochat.data.loader import Batch
from nanochat.evals.bpb import BitsPerByte, bits_per_byte, token_byte_lengths
from nanochat.model.gpt import GPT
from nanochat.tokenizer.bpe import Tokenizer

CPU = torch.device("cpu")


def batch(targets: list[list[int]]) -> Batch:
    tensor = torch.tensor(targets)
    return Batch(torch.zeros_like(tensor), tensor, {})


def losses_of(value: float) -> object:
    """A model that loses `value` nats everywhere, ignored targets included, which must not be counted."""
    return lambda inputs, targets: torch.full(targets.shape, value)


def test_special_tokens_and_ignored_targets_count_in_neither_sum() -> None:
    byte_lengths = torch.tensor([1, 2, 3, 0])  # the last is special
    found = bits_per_byte(losses_of(1.5), [batch([[0, 1, 3, -1], [2, -1, -1, -1]])], byte_lengths, 10**9)  # type: ignore[arg-type]
    assert found is not None
    assert found.value == pytest.approx(3 * 1.5 / (math.log(2) * 6), rel=1e-12)
    assert found.num_rows == 2


def test_the_standard_error_is_that_of_a_ratio_of_two_sums() -> None:
    """Held against many samples of rows, drawn anew: the spread of the ratios is what one sample says of itself."""
    generator = torch.Generator().manual_seed(1)

    def measured(num_rows: int) -> BitsPerByte:
        targets = torch.randint(3, (num_rows, 8), generator=generator)
        losses = torch.rand((num_rows, 8), generator=generator) + torch.rand((num_rows, 1), generator=generator) * 3
        one = Batch(torch.zeros_like(targets), targets, {})
        found = bits_per_byte(lambda inputs, targets: losses, [one], torch.tensor([1, 2, 5]), 10**9)
        assert found is not None and found.num_rows == num_rows
        return found

    samples = [measured(64) for _ in range(400)]
    spread = torch.tensor([sample.value for sample in samples]).std()
    mean_error = sum(sample.stderr for sample in samples) / len(samples)
    assert mean_error == pytest.approx(float(spread), rel=0.12)  # three times the error of a spread of 400


def test_nothing_to_count_gives_no_number() -> None:
    assert bits_per_byte(losses_of(1.0), [batch([[-1, 3]])], torch.tensor([1, 1, 1, 0]), 10**9) is None  # type: ignore[arg-type]
    assert bits_per_byte(losses_of(1.0), [], torch.tensor([1]), 10**9) is None  # type: ignore[arg-type]


def test_reading_ends_when_enough_tokens_were_read() -> None:
    read = []

    def losses(inputs: Tensor, targets: Tensor) -> Tensor:
        read.append(targets)
        return torch.ones(targets.shape)

    batches = [batch([[0, 0], [0, 0]])] * 10
    bits_per_byte(losses, batches, torch.tensor([1]), max_tokens=9)
    assert len(read) == 3


def test_the_model_and_byte_counts_meet_a_sum_over_single_tokens(model: GPT, tokenizer: Tokenizer) -> None:
    ids = torch.tensor([[tokenizer.bos_id, *tokenizer.encode("héllo, wörld")]])
    inputs, targets = ids[:, :-1], ids[:, 1:]
    found = bits_per_byte(
        lambda inputs, targets: model(inputs, targets, reduction="none"),
        [Batch(inputs, targets, {})],
        token_byte_lengths(tokenizer, CPU),
        10**9,
    )
    log_probs = model(inputs).double().log_softmax(-1)[0]
    nats = -sum(log_probs[i, target].item() for i, target in enumerate(targets[0].tolist()))
    assert found is not None
    assert found.value == pytest.approx(nats / (math.log(2) * len("héllo, wörld".encode())), rel=1e-5)
