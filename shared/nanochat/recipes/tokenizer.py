"""Trains a tokenizer on a dataset's documents, and on conversations where asked, and stores it under its job's name."""

import logging
from collections.abc import Iterator
from itertools import chain, islice

from nanochat.data.registry import datasets_dir
from nanochat.data.shards import Shards
from nanochat.protocol.jobs import TokenizerConfig
from nanochat.recipes.conversations import build_mixture, spoken_texts
from nanochat.recipes.distributed import require_one
from nanochat.recipes.job import JobContext, Outcome, tokenizers_dir
from nanochat.tokenizer.bpe import Tokenizer

log = logging.getLogger(__name__)

_NUM_VALIDATION_DOCUMENTS = 500


def run(job: JobContext, config: TokenizerConfig) -> Outcome:
    """The output is the tokenizer's name. Raises DataError, Stopped."""
    require_one(job.ranks, "tokenizer")
    dataset = job.dataset(config.dataset)
    with Shards(dataset.folder) as shards:
        texts = chain(_texts(job, shards, config), _conversation_texts(job, config))
        tokenizer = Tokenizer.train(texts, config.vocab_size)
        path = tokenizers_dir(job.home) / job.spec.name / "tokenizer.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        tokenizer.save(path)
        sample = islice(shards.documents("val"), _NUM_VALIDATION_DOCUMENTS)
        bytes_per_token = _bytes_per_token(tokenizer, [text[: config.doc_cap] for text in sample])
    job.progress.progress(1, 1, force=True)
    values = {"vocab_size": float(tokenizer.vocab_size), "bytes_per_token": bytes_per_token}
    job.progress.metrics(1, values)
    log.info("tokenizer_saved", extra={"path": str(path), "bytes_per_token": round(bytes_per_token, 3)})
    return Outcome(output=job.spec.name, values=values)


def _texts(job: JobContext, shards: Shards, config: TokenizerConfig) -> Iterator[str]:
    """The training split's documents, cut to doc_cap, until max_chars. Reading is most of the work, so it counts."""
    num_chars = 0
    num_paths = len(shards.paths("train"))
    size_bytes = sum(path.stat().st_size for path in shards.paths("train"))
    # Parquet of text packs to about a third; near enough for a bar.
    expected_chars = min(config.max_chars, 3 * size_bytes)
    for text in job.stop.watch(shards.documents("train")):
        text = text[: min(config.doc_cap, config.max_chars - num_chars)]
        num_chars += len(text)
        yield text
        job.progress.progress(min(num_chars, expected_chars - 1), expected_chars)
        if num_chars >= config.max_chars:
            break
    log.info("tokenizer_texts_read", extra={"num_chars": num_chars, "num_shards": num_paths})


def _conversation_texts(job: JobContext, config: TokenizerConfig) -> Iterator[str]:
    conversations = build_mixture(config.mixture, datasets_dir(job.home)).train
    for index in job.stop.watch(range(len(conversations))):
        yield from spoken_texts(conversations[index])


def _bytes_per_token(tokenizer: Tokenizer, texts: list[str]) -> float:
    num_tokens = sum(len(tokenizer.encode_array(text)) for text in texts)
    return sum(len(text.encode()) for text in texts) / max(1, num_tokens)
