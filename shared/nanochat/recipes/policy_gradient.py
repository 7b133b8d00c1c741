"""What reinforcement learning learns from: sampled answers, each weighed by how much better it was than its group.

REINFORCE on the policy that sampled, so without ratios, clipping or a reference model: the loss of a sampled token is
its negative log probability times its answer's advantage, its reward less the mean of its question's answers (GRPO,
arXiv 2402.03300, without the division by the deviation: 2503.20783), and a step's is the mean over all its sampled
tokens (2503.14476). How answers come about is rollouts.py's.
"""

import time
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nanochat.collectives import Peers
from nanochat.errors import OutOfMemory
from nanochat.model.gpt import GPT
from nanochat.recipes.batch import is_failed_allocation
from nanochat.recipes.rollouts import Rollout, RolloutSampler
from nanochat.recipes.stop import StopSignal
from nanochat.recipes.training_loop import Accumulated, Position


class Weighted(NamedTuple):
    """Rows of one length: inputs and targets (B, T) int64, targets -1 where nothing was sampled, weights (B,)."""

    inputs: Tensor
    targets: Tensor
    weights: Tensor


class PolicyGradient:
    """`device_batch_size`: answers at a time, forward and backward."""

    def __init__(
        self, model: GPT, sampler: RolloutSampler, device_batch_size: int, *, peers: Peers, stop: StopSignal
    ) -> None:
        self._model, self._sampler, self._peers, self._stop = model, sampler, peers, stop
        self._device_batch_size = device_batch_size
        self._values: dict[str, float] = {}

    @property
    def sequence_len(self) -> int:
        return self._sampler.max_len - 1

    def accumulate(self, step: int, scale: float) -> Accumulated:
        """Raises Stopped where a signal came while answers were sampled: the next attempt samples the same ones."""
        start = time.monotonic()
        groups = self._sampler.sample(step)
        rollout_s = time.monotonic() - start
        self._stop.check()
        answers = [(rollout, advantage) for group in groups for rollout, advantage in _weighed(group)]
        own_tokens = float(sum(rollout.num_sampled for group in groups for rollout in group))
        own_signal = float(sum(advantage != 0 for _, advantage in answers))
        num_tokens, num_with_signal = self._peers.sum([own_tokens, own_signal])
        loss = accumulate(self._model, answers, num_tokens / self._peers.world_size, self._device_batch_size, scale)
        self._values = self._describe(groups, rollout_s)
        return Accumulated(loss=loss, num_tokens=int(num_tokens), has_signal=num_with_signal > 0)

    def report(self, position: Position, loss: float) -> dict[str, float]:
        """Every step: there are hundreds, not hundred thousands. The loss itself says little, its mean being 0."""
        position.metrics.update(self._values)
        return dict(self._values)

    def state(self) -> dict[str, Any]:
        """Nothing: the step's number says which questions are next, and how they are answered."""
        return {}

    def out_of_memory(self, exc: BaseException) -> OutOfMemory | None:
        if not is_failed_allocation(exc):
            return None
        rows, slots = self._device_batch_size, self._sampler.num_slots
        return OutOfMemory(
            f"memory ran out with device_batch_size {rows}, answers at a time in training, and rollout_batch_size "
            f"{slots}, of up to {self._sampler.max_len} tokens. Try {max(1, rows // 2)} and {max(1, slots // 2)}, or "
            "lower max_new_tokens.",
            param="device_batch_size",
        )

    def _describe(self, groups: Sequence[Sequence[Rollout]], rollout_s: float) -> dict[str, float]:
        """Of all ranks' answers. reward: its mean. pass_ratio: questions with a right answer among theirs.
        mixed_ratio: those whose answers differ in reward, which alone teach. cut_ratio: answers that did not end."""
        rollouts = [rollout for group in groups for rollout in group]
        rewards = [[rollout.reward for rollout in group] for group in groups]
        own = [
            float(len(rollouts)),
            float(len(groups)),
            sum(map(sum, rewards)),
            float(sum(rollout.num_sampled for rollout in rollouts)),
            float(sum(not rollout.is_complete for rollout in rollouts)),
            float(sum(max(group) >= 1 for group in rewards)),
            float(sum(max(group) > min(group) for group in rewards)),
            sum(rollout.num_sampled for rollout in rollouts) / max(rollout_s, 1e-9),
        ]
        num_answers, num_questions, reward, tokens, cut, passed, mixed, speed = self._peers.sum(own)
        return {
            "reward": reward / num_answers,
            "answer_tokens": tokens / num_answers,
            "cut_ratio": cut / num_answers,
            "pass_ratio": passed / num_questions,
            "mixed_ratio": mixed / num_questions,
            "rollout_tokens_per_second": speed,
        }


def advantages(rewards: Sequence[float]) -> list[float]:
    """Of the answers to one question: how far each lies above their mean."""
    mean = fmean(rewards)
    return [reward - mean for reward in rewards]


def accumulate(
    model: GPT,
    answers: Sequence[tuple[Rollout, float]],
    num_tokens: float,
    device_batch_size: int,
    scale: float = 1.0,
) -> float:
    """Add up the gradients of answers with their advantages, times scale; gives the loss: the sum over their sampled
    tokens of -log p times the advantage, by num_tokens.

    Every parameter has a gradient afterwards, 0 where there is nothing to learn, since ranks average them.
    """
    total = torch.zeros((), device=model.device)
    for inputs, targets, weights in rows(answers, device_batch_size):
        losses = model.forward(inputs.to(model.device), targets.to(model.device), reduction="none")  # (B, T)
        loss: Tensor = (losses * weights.to(model.device)[:, None]).sum() / num_tokens
        (loss * scale).backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    for parameter in model.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    return float(total)


def rows(answers: Sequence[tuple[Rollout, float]], batch_size: int) -> Iterator[Weighted]:
    """Answers that weigh something as padded rows, those of like length together. Padding is on the right, where
    causal attention keeps it from what is counted."""
    weighty = [(rollout, advantage) for rollout, advantage in answers if advantage]
    weighty.sort(key=lambda answer: answer[0].num_tokens)  # stable: equal answers give equal rows
    for start in range(0, len(weighty), batch_size):
        part = weighty[start : start + batch_size]
        length = part[-1][0].num_tokens - 1
        inputs = torch.zeros((len(part), length), dtype=torch.int64)
        targets = torch.full((len(part), length), -1, dtype=torch.int64)
        for row, (rollout, _) in enumerate(part):
            ids = torch.tensor([*rollout.prompt_ids, *rollout.token_ids])
            is_learnt = torch.tensor([False] * len(rollout.prompt_ids) + rollout.is_sampled)
            inputs[row, : len(ids) - 1] = ids[:-1]
            targets[row, : len(ids) - 1] = torch.where(is_learnt, ids, -1)[1:]
        yield Weighted(inputs, targets, torch.tensor([advantage for _, advantage in part]))


def _weighed(group: Sequence[Rollout]) -> Iterator[tuple[Rollout, float]]:
    return zip(group, advantages([rollout.reward for rollout in group]), strict=True)
