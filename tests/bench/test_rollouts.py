"""Rollouts of a step of reinforcement learning: all questions at once, beside one question after the other.

The same questions three times in turns: as a step of a job's defaults samples them, sixteen answers each; by the same
engine, a question with eight answers a call; and so by plain PyTorch (nanochat.bench.plain). Answers of the random
model have all the same length, so nobody waits for a last long one, which would cost calls of one question most.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median

import pytest
import torch

from nanochat.bench.machine import OthersWork
from nanochat.bench.plain import PlainDecoder
from nanochat.bench.random_model import random_model, random_tokenizer
from nanochat.config import GPTConfig
from nanochat.cores import usable_cores
from nanochat.engine.generate import Engine
from nanochat.engine.params import SamplingParams
from nanochat.recipes.rl import NUM_SLOTS
from nanochat.recipes.rollouts import Questions, RolloutSampler
from nanochat.tasks.counting import Counting
from nanochat.tools.calculator import Calculator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

NUM_QUESTIONS, NUM_SAMPLES, NUM_NEW = 16, 16, 32
NUM_SAMPLES_ALONE = 8  # of a question at a time
NUM_ROUNDS = 5
MAX_PROMPT = 96
CONFIG = GPTConfig.from_depth(4, vocab_size=384, sequence_len=512, head_dim=64, window_pattern="SSSL")  # the demo's


def test_rollouts_are_four_times_as_fast_as_a_question_at_a_time() -> None:
    torch.set_num_threads(usable_cores())
    others, speeds = OthersWork(), _measure()
    print(
        f"\n{NUM_QUESTIONS} questions x {NUM_SAMPLES} or {NUM_SAMPLES_ALONE} samples of {NUM_NEW} tokens, "
        f"depth {CONFIG.n_layer}, {torch.get_num_threads()} threads, others took {others.cores:.2f} cores"
    )
    for name, speed in speeds.items():
        print(f"  {name:<45} {speed:8,.0f} tokens/s, {speeds['rollouts'] / speed:5.2f} x")
    assert speeds["rollouts"] >= 4 * speeds["plain PyTorch, a question at a time"]
    assert speeds["rollouts"] >= speeds["the engine, a question at a time"]


def _measure() -> dict[str, float]:
    """Sampled tokens a second, prefill included; medians. A first round is not counted."""
    model, tokenizer, task = random_model(CONFIG), random_tokenizer(CONFIG.vocab_size), Counting("train")
    questions = Questions(task, tokenizer, per_step=NUM_QUESTIONS, max_tokens=MAX_PROMPT, seed=1)
    params = SamplingParams(max_tokens=NUM_NEW, n=NUM_SAMPLES, seed=1)
    few = replace(params, n=NUM_SAMPLES_ALONE)
    max_len = MAX_PROMPT + NUM_NEW
    plain = PlainDecoder(model, max_len)
    with Calculator() as calculator:
        engine = Engine.of(model, tokenizer, calculator, num_slots=NUM_SLOTS, max_len=max_len)
        alone = Engine.of(model, tokenizer, calculator, num_slots=NUM_SAMPLES_ALONE, max_len=max_len)
        sampler = RolloutSampler(engine, task, questions, params, max_len=max_len, num_slots=NUM_SLOTS)

        def rollouts(step: int) -> int:
            return sum(rollout.num_sampled for group in sampler.sample(step) for rollout in group)

        def one_by_one(step: int) -> int:
            answers = [alone.generate([question.prompt_ids], few)[0] for question in questions.of_step(step)]
            return sum(len(answer.token_ids) for group in answers for answer in group)

        def plainly(step: int) -> int:
            prompts = [question.prompt_ids for question in questions.of_step(step)]
            return sum(plain.generate(prompt, NUM_SAMPLES_ALONE, NUM_NEW, 1.0).numel() for prompt in prompts)

        ways = {
            "rollouts": rollouts,
            "the engine, a question at a time": one_by_one,
            "plain PyTorch, a question at a time": plainly,
        }
        rounds = [{name: _speed(way, step) for name, way in ways.items()} for step in range(1 + NUM_ROUNDS)][1:]
    return {name: median(one[name] for one in rounds) for name in ways}


def _speed(way: Callable[[int], int], step: int) -> float:
    start = time.perf_counter()
    num_tokens = way(step)
    took_s = time.perf_counter() - start
    # A token that ends an answer comes about once in 10,000.
    assert num_tokens > 0.97 * NUM_QUESTIONS * NUM_SAMPLES_ALONE * NUM_NEW
    return num_tokens / took_s
