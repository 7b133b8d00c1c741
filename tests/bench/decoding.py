"""Decoding: tokens a second through the engine's step, for one row and for many, and of prompts on their way in.

Sampling and making text are part of a step, as in the service; its queue and HTTP are not.
"""

import time
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from statistics import median

import torch

from nanochat.config import GPTConfig
from nanochat.engine.backend import make_backend
from nanochat.engine.params import SamplingParams
from nanochat.engine.sequence import Sequence
from nanochat.engine.slots import Row
from nanochat.engine.step import run_step
from nanochat.model.gpt import GPT
from nanochat.model.init import init_weights
from nanochat.tokenizer.bpe import Tokenizer

TEMPERATURE = 0.3  # of chats that name none


@dataclass(frozen=True, kw_only=True)
class DecodingFigures:
    """For num_rows side by side: rates count the tokens of all. Medians; `rounds` are the measurements themselves."""

    num_rows: int
    tokens_per_second: float
    prefill_tokens_per_second: float
    speedup: float  # over the first number of rows, in the same round
    rounds: list[dict[str, float]]


class Decoder:
    """num_rows prompts of random tokens, and room to decode them together."""

    def __init__(self, model: GPT, num_rows: int, prompt_len: int) -> None:
        self.num_rows, self.prompt_len = num_rows, prompt_len
        self.backend = make_backend(model, num_slots=num_rows, max_len=model.config.sequence_len)
        self.tokenizer = _plain_tokenizer(model.config.vocab_size)
        shape, generator = (num_rows, prompt_len), torch.Generator().manual_seed(2)
        self.prompts = torch.randint(model.config.vocab_size, shape, generator=generator).tolist()

    def run(self, num_new: int) -> dict[str, float]:
        """Tokens a second in the step that takes the prompts in, and in num_new steps after it."""
        rows = [Row(self._sequence(slot), slot) for slot in range(self.num_rows)]
        start = time.perf_counter()
        while rows[-1].sequence.num_sampled == 0:
            run_step(self.backend, rows, budget=self.num_rows * self.prompt_len)
        prefilled = time.perf_counter()
        for _ in range(num_new):
            run_step(self.backend, rows)
        end = time.perf_counter()
        assert not any(row.sequence.is_finished for row in rows), "a row that ends early makes the others look fast"
        return {
            "prefill_tokens_per_second": self.num_rows * self.prompt_len / (prefilled - start),
            "tokens_per_second": self.num_rows * num_new / (end - prefilled),
        }

    def _sequence(self, slot: int) -> Sequence:
        params = SamplingParams(temperature=TEMPERATURE, seed=slot)
        return Sequence(self.prompts[slot], params, self.tokenizer, self.backend.max_len)


def measure_decoding(
    config: GPTConfig, *, num_rows: Seq[int], prompt_len: int, num_new: int, num_rounds: int
) -> list[DecodingFigures]:
    """For each number of rows; they take turns. A first round is not counted."""
    model = GPT(config)
    init_weights(model, torch.Generator().manual_seed(1))
    decoders = [Decoder(model, count, prompt_len) for count in num_rows]
    rounds = [[decoder.run(num_new) for decoder in decoders] for _ in range(1 + num_rounds)][1:]
    return [
        DecodingFigures(
            num_rows=count,
            tokens_per_second=median(one[i]["tokens_per_second"] for one in rounds),
            prefill_tokens_per_second=median(one[i]["prefill_tokens_per_second"] for one in rounds),
            speedup=median(one[i]["tokens_per_second"] / one[0]["tokens_per_second"] for one in rounds),
            rounds=[one[i] for one in rounds],
        )
        for i, count in enumerate(num_rows)
    ]


def _plain_tokenizer(num_tokens: int) -> Tokenizer:
    """Plain text for every token of the model, the special ones beyond its reach: no row ends or calls a tool."""
    pairs = [bytes([65 + i // 26, 65 + i % 26]) for i in range(num_tokens - 256)]
    return Tokenizer([*(bytes([byte]) for byte in range(256)), *pairs])
