"""The offline engine at so many streams: tokens a second, prefill included, first tokens, and shares of the machine.

Everything goes through Engine.generate, sampling and making text included, as callers have it. Times of parts are
differences of whole calls: a call for one token is the prompts' part, and what more tokens add is decoding's.
"""

import random
import time
from collections.abc import Sequence as Seq
from statistics import median

from nanochat.bench.random_model import random_model, random_tokenizer
from nanochat.bench.timing import Case, Timing
from nanochat.bench.work import Weights
from nanochat.config import GPTConfig
from nanochat.engine.backend import make_backend
from nanochat.engine.generate import Engine
from nanochat.engine.params import SamplingParams
from nanochat.tokenizer.special import SPECIAL_TOKENS


def make_engine(config: GPTConfig, weights: Weights, num_slots: int, max_len: int) -> Engine:
    """The one place that knows how an engine comes by its weights. Raises InvalidConfig where int8 cannot be had."""
    model, tokenizer = random_model(config), random_tokenizer(config.vocab_size)
    backend = make_backend(model, num_slots=num_slots, max_len=max_len, weights=weights, is_frozen=True)
    return Engine(backend, tokenizer)


def measure(engine: Engine, vocab_size: int, num_streams: Seq[int], case: Case, num_rounds: int) -> list[Timing]:
    """Numbers of streams take turns, so that what disturbs the machine meets all. A first round is not counted."""
    runner = _Runner(engine, vocab_size, case)
    rounds = [[runner.seconds(count) for count in num_streams] for _ in range(1 + num_rounds)][1:]
    return [
        Timing(
            num_streams=count,
            prefill_s=median(one[i][0] for one in rounds),
            total_s=median(one[i][1] for one in rounds),
        )
        for i, count in enumerate(num_streams)
    ]


class _Runner:
    """Prompts are new in every call, so that no cache of prefixes has seen them."""

    def __init__(self, engine: Engine, vocab_size: int, case: Case) -> None:
        self._engine, self._case = engine, case
        self._num_ids = vocab_size - len(SPECIAL_TOKENS)  # they come last
        self._dice = random.Random(1)

    def seconds(self, num_streams: int) -> tuple[float, float]:
        return self._run(num_streams, 1), self._run(num_streams, self._case.new_tokens)

    def _run(self, num_streams: int, num_new: int) -> float:
        num_prompts = 1 if self._case.is_shared else num_streams
        prompts = [self._dice.choices(range(self._num_ids), k=self._case.prompt_tokens) for _ in range(num_prompts)]
        params = SamplingParams(
            temperature=self._case.temperature,
            max_tokens=num_new,
            n=num_streams if self._case.is_shared else 1,
            seed=self._dice.randrange(2**31),
        )
        start = time.perf_counter()
        found = self._engine.generate(prompts, params)
        took_s = time.perf_counter() - start
        count = sum(len(completion.token_ids) for group in found for completion in group)
        assert count == num_streams * num_new, "a stream that ends early makes the others look fast"
        return took_s
