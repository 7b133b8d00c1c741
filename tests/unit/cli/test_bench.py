"""The benchmarks run, at sizes that take no time, and say what the table and the file promise."""

import json
import random
from dataclasses import asdict
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from nanochat.bench import report as files
from nanochat.data.builtin import write_shards
from tests.bench.run import Report, Sizes, measure, table

TINY = Sizes(
    tokenizing_vocab_size=300,
    num_tokenizing_chars=20_000,
    num_tokenizing_rounds=1,
    depth=2,
    head_dim=16,
    sequence_len=64,
    vocab_size=320,
    batch_size=2,
    trained=((2, 320), (1, 300)),
    num_micro_steps=2,
    is_compiled=False,
    num_rows=(1, 3),
    num_new=4,
    num_training_rounds=2,
    num_decoding_rounds=2,
    loading_vocab_size=320,
    num_loading_rounds=2,
    loading_window_s=0.02,
    num_packed_rows=300,
    read_size_bytes=2**20,
    evaluated_vocab_size=320,
    num_evaluated=3,
    num_evaluated_singly=1,
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Of a dataset of 1200 documents, shorter and longer than a row."""
    torch.set_num_threads(1)
    folder, rng = tmp_path_factory.mktemp("numbers"), random.Random(0)
    documents = [" ".join(str(rng.randrange(10**6)) for _ in range(rng.randint(1, 40))) for _ in range(1200)]
    write_shards(folder, documents, 2)
    return measure(TINY, folder)


def test_model_flops_are_a_share_of_the_measured_peak(report: Report) -> None:
    assert [one.name for one in report.training] == list(TINY.trained_configs())
    assert len(report.training) == 3
    assert all(0 < one.mfu_ratio < 1 for one in report.training)


def test_the_optimizer_takes_a_part_of_the_step(report: Report) -> None:
    assert all(0 < one.optimizer_ratio < 1 for one in report.training)


def test_the_loaders_speed_is_a_multiple_of_the_steps(report: Report) -> None:
    loading = report.loading
    ratios = [one["tokens_per_second"] / one["step_tokens_per_second"] for one in loading.rounds]
    assert len(ratios) == 2 and min(ratios) <= loading.step_ratio <= max(ratios)


def test_the_loader_wastes_what_the_definition_of_best_fit_does(report: Report) -> None:
    assert 0 < report.loading.discarded_ratio < 1
    assert report.loading.discarded_ratio == pytest.approx(report.loading.plain_discarded_ratio, abs=1e-12)


def test_the_tokenizer_stands_beside_what_it_is_made_of(report: Report) -> None:
    assert report.tokenizing.num_chars >= TINY.num_tokenizing_chars
    assert 0.1 < report.tokenizing.encode_ratio < 10 and 0.1 < report.tokenizing.train_ratio < 10


def test_decoding_is_measured_at_every_number_of_rows(report: Report) -> None:
    assert [one.num_streams for one in report.decoding] == [1, 3]
    assert all(one.decode_tokens_per_second > 0 and one.read_ratio > 0 for one in report.decoding)


def test_many_examples_at_a_time_have_the_outcomes_of_one_at_a_time(report: Report) -> None:
    found = report.evaluation
    assert (found.num_compared, found.num_different) == (3, 0)
    assert found.core_ratio > 0 and found.answers_ratio > 0


def test_the_file_holds_the_report(report: Report, tmp_path: Path) -> None:
    (path,) = files.write(tmp_path / "bench", "training", report)
    assert json.loads(path.read_text()) == json.loads(json.dumps(asdict(report)))


def test_the_table_shows_the_headline(report: Report) -> None:
    console = Console(file=StringIO(), width=100)
    console.print(table(report))
    assert f"{report.training[0].mfu_ratio:.3f}" in console.file.getvalue()  # type: ignore[attr-defined]
