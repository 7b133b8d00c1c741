"""The gradient of weighted answers, beside one that is written out sequence by sequence."""

import pytest
import torch

from nanochat.config import GPTConfig
from nanochat.model.gpt import GPT
from nanochat.model.init import init_weights
from nanochat.model.names import named_parameters
from nanochat.recipes.policy_gradient import accumulate, advantages, rows
from nanochat.recipes.rollouts import Rollout

CONFIG = GPTConfig(sequence_len=32, vocab_size=64, n_layer=2, n_head=2, n_kv_head=1, n_embd=32, window_pattern="L")


def make_model() -> GPT:
    model = GPT(CONFIG)
    generator = torch.Generator().manual_seed(0)
    init_weights(model, generator)
    with torch.no_grad():  # the first weights leave most gradients 0
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def make_rollouts() -> list[Rollout]:
    """Two questions with three answers each, of different lengths; the second answer of each called a tool."""
    generator = torch.Generator().manual_seed(1)
    rollouts = []
    for prompt_length, rewards in ((5, (1.0, 0.0, 0.0)), (9, (0.0, 1.0, 1.0))):
        prompt = torch.randint(64, (prompt_length,), generator=generator).tolist()
        for index, (length, reward) in enumerate(zip((4, 9, 12), rewards, strict=True)):
            ids = torch.randint(64, (length,), generator=generator).tolist()
            is_sampled = [not (index == 1 and 3 <= place < 6) for place in range(length)]
            rollouts.append(
                Rollout(prompt_ids=prompt, token_ids=ids, is_sampled=is_sampled, is_complete=True, reward=reward)
            )
    return rollouts


def weighed(rollouts: list[Rollout]) -> list[tuple[Rollout, float]]:
    groups = [rollouts[:3], rollouts[3:]]
    return [pair for group in groups for pair in zip(group, advantages([one.reward for one in group]), strict=True)]


def plain_loss(model: GPT, answers: list[tuple[Rollout, float]]) -> torch.Tensor:
    """A token at a time, from whole logits: -log p of each sampled token times its answer's advantage."""
    total, num_tokens = torch.zeros(()), 0
    for rollout, advantage in answers:
        ids = rollout.prompt_ids + rollout.token_ids
        log_probs = model(torch.tensor([ids]))[0].log_softmax(dim=-1)
        for place, (token_id, is_sampled) in enumerate(zip(rollout.token_ids, rollout.is_sampled, strict=True)):
            if is_sampled:
                total = total - advantage * log_probs[len(rollout.prompt_ids) + place - 1, token_id]
                num_tokens += 1
    return total / num_tokens


def test_an_answers_advantage_is_its_reward_less_its_groups_mean() -> None:
    assert advantages([1.0, 0.0, 0.0, 1.0]) == [0.5, -0.5, -0.5, 0.5]
    assert advantages([1.0, 0.0, 0.0, 0.0]) == [0.75, -0.25, -0.25, -0.25]
    assert advantages([1.0, 1.0]) == [0.0, 0.0]


@pytest.mark.parametrize("batch_size", [1, 2, 6])
def test_the_gradient_is_that_of_the_plain_loss_however_rows_are_cut(batch_size: int) -> None:
    model, reference = make_model(), make_model()
    answers = weighed(make_rollouts())
    num_tokens = float(sum(rollout.num_sampled for rollout, _ in answers))
    assert num_tokens == 2 * (4 + 9 + 12 - 3)
    expected = plain_loss(reference, answers)
    expected.backward()  # type: ignore[no-untyped-call]
    loss = accumulate(model, answers, num_tokens, batch_size)
    assert loss == pytest.approx(float(expected.detach()), rel=1e-5)
    for name, parameter in named_parameters(model).items():
        other = named_parameters(reference)[name].grad
        assert other is not None and bool(other.any()), name
        torch.testing.assert_close(parameter.grad, other, rtol=1e-3, atol=1e-6)  # float32 sums in another order


def test_the_gradients_of_two_ranks_average_to_that_of_one() -> None:
    whole, parts = make_model(), [make_model(), make_model()]
    answers = weighed(make_rollouts())
    num_tokens = float(sum(rollout.num_sampled for rollout, _ in answers))
    accumulate(whole, answers, num_tokens, 8)
    for part, own in zip(parts, (answers[:3], answers[3:]), strict=True):
        accumulate(part, own, num_tokens / 2, 8)
    for name, parameter in named_parameters(whole).items():
        both = [named_parameters(part)[name].grad for part in parts]
        mean = torch.stack([grad for grad in both if grad is not None]).mean(dim=0)
        torch.testing.assert_close(mean, parameter.grad, rtol=1e-3, atol=1e-6)


def test_prompts_and_forced_tokens_are_read_and_not_learnt() -> None:
    rollout = Rollout(
        prompt_ids=[1, 2, 3], token_ids=[4, 5, 6, 7], is_sampled=[True, False, False, True], is_complete=True, reward=1
    )
    short = Rollout(prompt_ids=[8], token_ids=[9], is_sampled=[True], is_complete=True, reward=0)
    (batch,) = rows([(rollout, 0.5), (short, -0.5)], 8)
    assert batch.inputs.tolist() == [[8, 0, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6]]
    assert batch.targets.tolist() == [[9, -1, -1, -1, -1, -1], [-1, -1, 4, -1, -1, 7]]
    assert batch.weights.tolist() == [-0.5, 0.5]


def test_answers_that_are_as_good_as_their_group_cost_nothing_and_leave_gradients_of_zero() -> None:
    model = make_model()
    answers = [(rollout, 0.0) for rollout in make_rollouts()]
    assert list(rows(answers, 2)) == []
    assert accumulate(model, answers, 44.0, 2) == 0.0
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)
