"""The tokenizer beside what it is made of: bare tiktoken for encoding, bare rustbpe for training, on the same text.

Both sides take turns, so that what disturbs the machine meets both.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import rustbpe
import tiktoken

from nanochat.data.shards import Shards
from nanochat.tokenizer.bpe import SPLIT_PATTERN, Tokenizer
from nanochat.tokenizer.special import SPECIAL_TOKENS


@dataclass(frozen=True, kw_only=True)
class TokenizingFigures:
    """Ratios of medians: ours to the bare library's. encode_array is what the loader calls."""

    num_chars: int
    vocab_size: int
    encode_chars_per_second: float
    encode_ratio: float  # of speeds; at least 1 is no slower
    encode_array_ratio: float
    encode_threads_ratio: float  # two threads each
    train_ratio: float  # of times; at most 1.1 is within ten per cent


def measure_tokenizing(folder: Path, *, vocab_size: int, num_chars: int, num_rounds: int) -> TokenizingFigures:
    texts = list(_texts(folder, num_chars))
    tokenizer = Tokenizer.train(texts, vocab_size)
    ranks = {tokenizer.token_bytes(token): token for token in range(vocab_size - len(SPECIAL_TOKENS))}
    bare = tiktoken.Encoding("bare", pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens={})
    for text in texts[:100]:
        assert tokenizer.encode(text) == bare.encode_ordinary(text), "both must do the same work"
    timed = _medians(
        {
            "encode": lambda: _each(tokenizer.encode, texts),
            "bare": lambda: _each(bare.encode_ordinary, texts),
            "array": lambda: _each(tokenizer.encode_array, texts),
            "encode, 2 threads": lambda: _in_threads(tokenizer.encode, texts),
            "bare, 2 threads": lambda: bare.encode_ordinary_batch(texts, num_threads=2),
        },
        num_rounds,
    )
    trained = _medians(
        {"train": lambda: Tokenizer.train(iter(texts), vocab_size), "bare": lambda: _train_bare(texts, vocab_size)},
        num_rounds,
    )
    total = sum(map(len, texts))
    return TokenizingFigures(
        num_chars=total,
        vocab_size=vocab_size,
        encode_chars_per_second=total / timed["encode"],
        encode_ratio=timed["bare"] / timed["encode"],
        encode_array_ratio=timed["bare"] / timed["array"],
        encode_threads_ratio=timed["bare, 2 threads"] / timed["encode, 2 threads"],
        train_ratio=trained["train"] / trained["bare"],
    )


def _texts(folder: Path, num_chars: int) -> Iterator[str]:
    with Shards(folder) as shards:
        for text in shards.documents("train"):
            yield text
            num_chars -= len(text)
            if num_chars <= 0:
                return


def _medians(work: dict[str, Callable[[], object]], num_rounds: int) -> dict[str, float]:
    taken: dict[str, list[float]] = {name: [] for name in work}
    for number in range(1 + num_rounds):  # the first one touches memory
        for name, run in work.items():
            start = time.perf_counter()
            run()
            if number:
                taken[name].append(time.perf_counter() - start)
    return {name: median(times) for name, times in taken.items()}


def _each(encode: Callable[[str], object], texts: list[str]) -> None:
    for text in texts:
        encode(text)


def _in_threads(encode: Callable[[str], object], texts: list[str]) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(encode, texts))


def _train_bare(texts: list[str], vocab_size: int) -> None:
    trainer = rustbpe.Tokenizer()
    trainer.train_from_iterator(iter(texts), vocab_size - len(SPECIAL_TOKENS), pattern=SPLIT_PATTERN)
    trainer.get_mergeable_ranks()
