"""Short samples: what a model says, for a person who reads the log."""

from collections.abc import Sequence
from dataclasses import dataclass

from nanochat.engine.generate import Engine
from nanochat.engine.params import SamplingParams
from nanochat.protocol.generate import Message
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.chat import render_prompt

TEXT_PROMPTS = (
    "The capital of France is",
    "If a function is called",
    "The first time that I saw",
    "Once upon a time",
)
CHAT_PROMPTS = (
    "Hello!",
    "Who are you?",
    "Spell the word: garden",
    "How many e are in cheese?",
    "What is 27 + 15?",
)


@dataclass(frozen=True, kw_only=True)
class Sample:
    prompt: str
    text: str


def sample_texts(
    engine: Engine, tokenizer: Tokenizer, prompts: Sequence[str] = TEXT_PROMPTS, max_tokens: int = 32
) -> list[Sample]:
    """Greedy continuations of plain text, as a base model gives them."""
    return _sample(engine, prompts, [[tokenizer.bos_id, *tokenizer.encode(prompt)] for prompt in prompts], max_tokens)


def sample_chats(
    engine: Engine, tokenizer: Tokenizer, prompts: Sequence[str] = CHAT_PROMPTS, max_tokens: int = 64
) -> list[Sample]:
    """Greedy answers to single messages, as a chat model gives them."""
    rendered = [render_prompt(tokenizer, [Message(role="user", content=prompt)]) for prompt in prompts]
    return _sample(engine, prompts, rendered, max_tokens)


def _sample(engine: Engine, prompts: Sequence[str], token_ids: list[list[int]], max_tokens: int) -> list[Sample]:
    params = SamplingParams(temperature=0.0, max_tokens=max_tokens)
    completions = engine.generate(token_ids, params)
    return [Sample(prompt=prompt, text=done.text) for prompt, (done,) in zip(prompts, completions, strict=True)]
