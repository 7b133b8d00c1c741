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
# A merge takes about as long as reading so many characters: 32,503 took 2.5 s beside 13 s for 82 million.
_CHARS_A_MERGE = 500


def run(job: JobContext, config: TokenizerConfig) -> Outcome:
    """The output is the tokenizer's name. Raises DataError, Stopped."""
    require_one(job.ranks, "tokenizer")
    dataset = job.dataset(config.dataset)
    with Shards(dataset.folder) as shards:
        texts = chain(_texts(job, shards, config), _conversation_texts(job, config))
        expected_chars = _expected_chars(shards, config)

        def on_merges(num_done: int, num_merges: int) -> None:
            """Called from native code, which an exception could not leave: the process ends here if it is to stop."""
            merged_chars = config.vocab_size * _CHARS_A_MERGE * num_done // num_merges
            num_steps = expected_chars + config.vocab_size * _CHARS_A_MERGE
            job.progress.progress(min(expected_chars + merged_chars, num_steps - 1), num_steps, force=not num_done)
            if job.stop.is_set:
                log.info("job_stopped", extra={"job_id": job.spec.job_id})
            job.stop.exit_if_set()

        tokenizer = Tokenizer.train(texts, config.vocab_size, on_merges)
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
    expected_chars = _expected_chars(shards, config)
    num_steps = expected_chars + config.vocab_size * _CHARS_A_MERGE
    for text in job.stop.watch(shards.documents("train")):
        text = text[: min(config.doc_cap, config.max_chars - num_chars)]
        num_chars += len(text)
        yield text
        job.progress.progress(min(num_chars, expected_chars), num_steps)
        if num_chars >= config.max_chars:
            break
    log.info("tokenizer_texts_read", extra={"num_chars": num_chars, "num_shards": num_paths})


def _expected_chars(shards: Shards, config: TokenizerConfig) -> int:
    """Of the documents that will be read. Parquet of text packs to about a third; near enough for a bar."""
    return min(config.max_chars, 3 * sum(path.stat().st_size for path in shards.paths("train")))


def _conversation_texts(job: JobContext, config: TokenizerConfig) -> Iterator[str]:
    conversations = build_mixture(config.mixture, datasets_dir(job.home)).train
    for index in job.stop.watch(range(len(conversations))):
        yield from spoken_texts(conversations[index])


def _bytes_per_token(tokenizer: Tokenizer, texts: list[str]) -> float:
    num_tokens = sum(len(tokenizer.encode_array(text)) for text in texts)
    return sum(len(text.encode()) for text in texts) / max(1, num_tokens)
