"""Trains a tokenizer on a dataset's documents, and on conversations where asked, and stores it under its job's name."""

import logging
from collections.abc import Iterable, Iterator
from itertools import chain, islice

from nanochat.data.registry import datasets_dir
from nanochat.data.shards import Shards
from nanochat.protocol.jobs import TokenizerConfig
from nanochat.recipes.conversations import build_mixture, spoken_texts
from nanochat.recipes.distributed import require_one
from nanochat.recipes.job import JobContext, Outcome, tokenizers_dir
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.compression import measure, sample_texts
from nanochat.tokenizer.origin import Origin, save_origin

log = logging.getLogger(__name__)

_NUM_DOCUMENTS = 500  # of each split, to measure
# A merge takes about as long as reading so many characters: 32,503 took 2.5 s beside 13 s for 82 million.
_CHARS_A_MERGE = 500


def run(job: JobContext, config: TokenizerConfig) -> Outcome:
    """The output is the tokenizer's name. Raises DataError, Stopped."""
    require_one(job.ranks, "tokenizer")
    dataset = job.dataset(config.dataset)
    with Shards(dataset.folder) as shards:
        counted = _Counted()
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

        tokenizer = Tokenizer.train(counted.watch(texts), config.vocab_size, on_merges)
        of_kinds = _bytes_per_token(tokenizer, shards, config)
    folder = tokenizers_dir(job.home) / job.spec.name
    folder.mkdir(parents=True, exist_ok=True)
    origin = Origin(
        job_id=job.spec.job_id,
        dataset=dataset.name,
        dataset_fingerprint=shards.fingerprint("train"),
        num_chars=counted.num_chars,
        vocab_size=tokenizer.vocab_size,
        config=config.model_dump(mode="json"),
        bytes_per_token=of_kinds,
    )
    save_origin(folder, origin)
    tokenizer.save(folder / "tokenizer.json")
    job.progress.progress(1, 1, force=True)
    values = {"vocab_size": float(tokenizer.vocab_size), "bytes_per_token": of_kinds["validation"]}
    values |= {f"bytes_per_token_{kind}": value for kind, value in of_kinds.items()}
    job.progress.metrics(1, values)
    log.info("tokenizer_saved", extra={"path": str(folder), "bytes_per_token": round(of_kinds["validation"], 3)})
    return Outcome(output=job.spec.name, values=values)


class _Counted:
    """How many characters have come by."""

    num_chars = 0

    def watch(self, texts: Iterable[str]) -> Iterator[str]:
        for text in texts:
            self.num_chars += len(text)
            yield text


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


def _bytes_per_token(tokenizer: Tokenizer, shards: Shards, config: TokenizerConfig) -> dict[str, float]:
    """By kind of text: the samples of every tokenizer, and this one's own training and validation splits."""
    kinds: dict[str, Iterable[str]] = {kind: [text] for kind, text in sample_texts().items()}
    for kind, documents in (("train", shards.documents("train")), ("validation", shards.documents("val"))):
        kinds[kind] = (text[: config.doc_cap] for text in islice(documents, _NUM_DOCUMENTS))
    found = {kind: measure(kind, texts, tokenizer, {}) for kind, texts in kinds.items()}
    return {kind: one.bytes_per_token if one is not None else 0.0 for kind, one in found.items()}
