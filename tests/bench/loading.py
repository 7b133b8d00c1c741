"""The loader alone, on real text: tokens a second beside what a training step as jobs run it takes, and its waste.

The two take turns, so that what disturbs the machine meets both. The waste stands beside the definition's, which looks
at every waiting document (tests/unit/data/plain_packing.py).
"""

import contextlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median

from nanochat.config import GPTConfig
from nanochat.data.builtin import prepare
from nanochat.data.loader import Loader, training_loader
from nanochat.data.packing import BUFFER_SIZE
from nanochat.data.registry import BUILTIN_DATASETS, Dataset
from nanochat.data.shards import Shards
from nanochat.data.sources import TextSource
from nanochat.tokenizer.bpe import Tokenizer
from tests.bench.training import Trainer
from tests.unit.data.plain_packing import plain_fill

_TOKENIZER_CHARS = 10_000_000
# Made ahead while a step ran, and so not counted.
_BATCHES_AHEAD = 32


@dataclass(frozen=True, kw_only=True)
class LoadingFigures:
    """Tokens are those of the batches; the ones thrown away had to be tokenised too. Medians over the rounds."""

    dataset: str
    vocab_size: int
    tokens_per_second: float
    step_tokens_per_second: float
    step_ratio: float  # the loader's to the step's
    discarded_ratio: float  # of the first rows' documents
    plain_discarded_ratio: float  # the definition's, for as many rows of the same documents
    rounds: list[dict[str, float]]


def measure_loading(
    config: GPTConfig,
    data: Path | None,
    *,
    batch_size: int,
    is_compiled: bool,
    num_rounds: int,
    window_s: float,
    num_rows: int,
) -> LoadingFigures:
    """`data` is a dataset's folder; None takes the built-in one. Its tokenizer is trained here, with the config's
    vocabulary. The first `num_rows` rows tell the waste."""
    with dataset_folder(data) as data:
        tokenizer = _train_tokenizer(data, config.vocab_size)
        with training_loader(data, tokenizer, batch_size=batch_size, sequence_len=config.sequence_len) as loader:
            for _ in range(num_rows // batch_size):
                next(loader)
            discarded_ratio = loader.counts.discarded_ratio
            trainer = Trainer(config, batch_size, is_compiled=is_compiled)
            rounds = _rounds(loader, trainer, num_rounds, window_s)
        plain_ratio = _plain_ratio(data, tokenizer, config.sequence_len, num_rows // batch_size * batch_size)
    return LoadingFigures(
        dataset=data.name,
        vocab_size=config.vocab_size,
        tokens_per_second=median(one["tokens_per_second"] for one in rounds),
        step_tokens_per_second=median(one["step_tokens_per_second"] for one in rounds),
        step_ratio=median(one["tokens_per_second"] / one["step_tokens_per_second"] for one in rounds),
        discarded_ratio=discarded_ratio,
        plain_discarded_ratio=plain_ratio,
        rounds=rounds,
    )


@contextlib.contextmanager
def dataset_folder(data: Path | None) -> Iterator[Path]:
    """The folder given, or the built-in dataset, made for as long as the context lasts."""
    if data is not None:
        yield data
        return
    with tempfile.TemporaryDirectory(prefix="nanochat-bench-") as folder:
        yield _builtin(Path(folder))


def _rounds(loader: Loader, trainer: Trainer, num_rounds: int, window_s: float) -> list[dict[str, float]]:
    trainer.step()  # compiles, and touches memory that later ones find ready
    rounds = []
    for _ in range(num_rounds):
        step_s, _ = trainer.step()
        for _ in range(_BATCHES_AHEAD):
            next(loader)
        start, num_tokens = time.perf_counter(), 0
        while (taken_s := time.perf_counter() - start) < window_s or not num_tokens:
            num_tokens += next(loader).inputs.numel()
        step_speed = trainer.inputs.numel() / step_s
        rounds.append({"tokens_per_second": num_tokens / taken_s, "step_tokens_per_second": step_speed})
    return rounds


def _plain_ratio(data: Path, tokenizer: Tokenizer, sequence_len: int, num_rows: int) -> float:
    """What the definition throws away of its first rows' documents."""
    lengths: list[int] = []

    def read() -> Iterator[int]:
        for document in source.documents():
            lengths.append(len(document))
            yield len(document)

    source = TextSource(Shards(data), "train", tokenizer)
    try:
        rows = list(islice(plain_fill(read(), sequence_len + 1, BUFFER_SIZE), num_rows))
    finally:
        source.close()
    num_kept = sum(num for row in rows for _, num in row)
    return 1 - num_kept / sum(lengths[document] for row in rows for document, _ in row)


def _builtin(home: Path) -> Path:
    name = BUILTIN_DATASETS[0]
    return prepare(Dataset(name=name, folder=home / name, shards=())).folder


def _train_tokenizer(data: Path, vocab_size: int) -> Tokenizer:
    with Shards(data) as shards:
        return Tokenizer.train(_beginning(shards.documents("train"), _TOKENIZER_CHARS), vocab_size)


def _beginning(texts: Iterator[str], num_chars: int) -> Iterator[str]:
    for text in texts:
        yield text
        num_chars -= len(text)
        if num_chars <= 0:
            break
