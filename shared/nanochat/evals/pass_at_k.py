"""pass@k: how often at least one of k sampled answers is right.

Estimated without bias from n >= k answers a question (Chen et al., arXiv 2107.03374, section 2.1): of the ways to draw
k of them, the share that holds a right one.
"""

import dataclasses
from collections.abc import Sequence
from math import comb

from nanochat.engine.generate import Engine
from nanochat.engine.params import SamplingParams
from nanochat.tasks.base import Task
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.chat import render_prompt

_CHUNK = 64  # questions at a time


def pass_at_k(num_samples: int, num_right: int, k: int) -> float:
    """Of one question, with num_right of num_samples answers right; 1 <= k <= num_samples."""
    assert 0 <= num_right <= num_samples and 1 <= k <= num_samples
    return 1.0 - comb(num_samples - num_right, k) / comb(num_samples, k)


def ks_of(num_samples: int) -> list[int]:
    """Powers of two up to num_samples, and num_samples."""
    return sorted({2**i for i in range(num_samples.bit_length()) if 2**i <= num_samples} | {num_samples})


def count_right(engine: Engine, tokenizer: Tokenizer, task: Task, params: SamplingParams) -> list[int]:
    """How many of params.n answers are right, of each question of a task. The i-th question's answers are drawn with
    seed params.seed + i. Raises ContextTooLong where a conversation does not fit the model."""
    counts: list[int] = []
    for start in range(0, len(task), _CHUNK):
        conversations = list(task[start : start + _CHUNK])
        prompts = [render_prompt(tokenizer, conversation.messages[:-1]) for conversation in conversations]
        seeds = [None if params.seed is None else params.seed + start + i for i in range(len(prompts))]
        each = [dataclasses.replace(params, seed=seed) for seed in seeds]
        answers = engine.generate(prompts, each)
        asked = [conversation for conversation in conversations for _ in range(params.n)]
        rewards = task.rewards(asked, [answer.text for group in answers for answer in group])
        counts += [_num_right(rewards[i : i + params.n]) for i in range(0, len(rewards), params.n)]
    return counts


def _num_right(rewards: Sequence[float]) -> int:
    return sum(reward >= 1 for reward in rewards)
