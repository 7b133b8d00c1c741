"""The tokenizer's job: how far it is, and how it stops while native code merges."""

import random
import signal
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat.protocol.progress import Metric, Progress
from nanochat.recipes.stop import EXIT_STOPPED
from nanochat.tokenizer.origin import load_origin

from .conftest import Workshop

_VOCAB_SIZE = 20_000


@pytest.fixture(scope="module")
def many_words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So many different words that merging takes a second or more."""
    folder = tmp_path_factory.mktemp("words")
    rng = random.Random(0)
    for shard in range(2):
        texts = [" ".join("".join(rng.choices("abcdefghij", k=9)) for _ in range(1000)) for _ in range(300)]
        pq.write_table(pa.table({"text": texts}), folder / f"shard_{shard:05d}.parquet")
    return folder


def test_sigterm_stops_the_merges_too_and_leaves_nothing(workshop: Workshop, many_words: Path) -> None:
    spec = workshop.tokenizer("stopped", dataset=str(many_words), vocab_size=_VOCAB_SIZE)
    process = workshop.start(spec)
    try:
        read = 3 * (many_words / "shard_00000.parquet").stat().st_size
        deadline = time.monotonic() + 60
        while not any(isinstance(line, Progress) and line.step >= read for line in workshop.lines(spec)):
            assert process.poll() is None and time.monotonic() < deadline
        process.send_signal(signal.SIGTERM)
        ran = workshop.finish(spec, process)
    finally:
        process.kill()
        process.wait()
    assert ran.exit_code == EXIT_STOPPED
    assert not (workshop.home / "tokenizers" / "stopped" / "tokenizer.json").exists()


def test_progress_never_goes_back_and_ends_whole(workshop: Workshop) -> None:
    ran = workshop.run(workshop.tokenizer("shown"))
    steps = [line for line in ran.lines if isinstance(line, Progress)]
    ratios = [line.step / line.num_steps for line in steps]
    assert ratios == sorted(ratios)
    assert ratios[-1] == 1.0
    assert len({line.num_steps for line in steps[:-1]}) == 1  # one scale for reading and merging


def test_a_dataset_of_empty_documents_is_said(workshop: Workshop, tmp_path: Path) -> None:
    for shard in range(2):
        pq.write_table(pa.table({"text": ["", ""]}), tmp_path / f"shard_{shard:05d}.parquet")
    failure = workshop.run(workshop.tokenizer("empty", dataset=str(tmp_path))).failure
    assert failure.code == "data_error"
    assert "every document is empty" in failure.message


def test_how_it_packs_each_kind_of_text_and_what_it_was_made_of_stay_with_it(workshop: Workshop) -> None:
    spec = workshop.tokenizer("known")
    ran = workshop.run(spec)
    newest = [line.values for line in ran.lines if isinstance(line, Metric)][-1]
    kinds = ("news", "code", "mathematics", "science", "korean", "train", "validation")
    assert all(newest[f"bytes_per_token_{kind}"] >= 1.0 for kind in kinds)
    assert newest["bytes_per_token"] == newest["bytes_per_token_validation"] > newest["bytes_per_token_korean"]
    origin = load_origin(workshop.home / "tokenizers" / "known")
    assert origin is not None
    assert (origin.job_id, origin.vocab_size) == (spec.job_id, newest["vocab_size"])
    assert origin.num_chars > 1000 and origin.config["dataset"] == spec.config["dataset"]
    assert origin.bytes_per_token == {kind: newest[f"bytes_per_token_{kind}"] for kind in kinds}
