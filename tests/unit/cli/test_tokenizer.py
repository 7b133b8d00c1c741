"""`nanochat tokenizer` as it is typed."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat.cli.tokenizer import printable
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.origin import Origin, save_origin
from tests.unit.cli.conftest import FakeGateway, nanochat
from tests.unit.cli.test_commands import job


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of the tokenizer "mine"."""
    monkeypatch.setenv("NANOCHAT_HOME", str(tmp_path))
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    folder = tmp_path / "tokenizers" / "mine"
    folder.mkdir(parents=True)
    Tokenizer.train(["the cat sat on the mat with the other cat " * 20], 270).save(folder)
    return folder


def test_training_is_a_job(gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway.answers["POST /v1/jobs"] = (202, job(kind="tokenizer", status="queued"))
    assert nanochat(monkeypatch, "tokenizer", "train", "vocab_size=512", "--name", "mine", "--no-follow") == 0
    (asked,) = gateway.asked
    assert asked.body["kind"] == "tokenizer" and asked.body["config"] == {"vocab_size": 512}


@pytest.mark.usefixtures("folder")
def test_every_kind_of_text_is_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert nanochat(monkeypatch, "tokenizer", "eval", "mine", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["kind"] for one in found["kinds"]] == ["news", "code", "mathematics", "science", "korean"]
    assert all(one["bytes_per_token"] >= 1.0 for one in found["kinds"])
    assert set(found["missing"]) == {"GPT-2", "GPT-4"}


def test_a_datasets_splits_are_measured_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = folder.parents[1] / "datasets" / "text"
    dataset.mkdir(parents=True)
    for shard, text in enumerate(("the cat", "sat")):
        pq.write_table(pa.table({"text": [text]}), dataset / f"{shard}.parquet")
    for reference in ("text", str(dataset)):
        assert nanochat(monkeypatch, "tokenizer", "eval", str(folder), "--dataset", reference, "--json") == 0
        found = {one["kind"]: one["num_bytes"] for one in json.loads(capsys.readouterr().out)["kinds"]}
        assert (found["train"], found["validation"]) == (7, 3)
    assert nanochat(monkeypatch, "tokenizer", "eval", str(folder), "--dataset", "other") == 1
    assert "dataset 'other' is not on this machine" in " ".join(capsys.readouterr().err.split())


@pytest.mark.usefixtures("folder")
def test_what_a_tokenizer_holds_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert nanochat(monkeypatch, "tokenizer", "show", "mine") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "270 tokens, 9 of them special" in shown and "261 <|bos|>" in shown


def test_what_a_tokenizer_was_trained_on_is_shown(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    origin = Origin(
        job_id="job_1",
        dataset="text",
        dataset_fingerprint="0123",
        num_chars=4_000,
        vocab_size=270,
        config={},
        bytes_per_token={},
    )
    save_origin(folder, origin)
    for reference in ("mine", str(folder), str(folder / "tokenizer.json")):
        assert nanochat(monkeypatch, "tokenizer", "show", reference) == 0
        assert "trained by job_1 on 4,000 characters, of text first" in " ".join(capsys.readouterr().out.split())
    (folder / "origin.json").write_text("{")
    assert nanochat(monkeypatch, "tokenizer", "show", "mine") == 1
    assert "origin.json cannot be read" in " ".join(capsys.readouterr().err.split())


@pytest.mark.usefixtures("folder")
def test_the_tokens_of_a_text_are_shown_without_its_control_characters(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert nanochat(monkeypatch, "tokenizer", "show", "mine", "--text", "the cat\x1b[2J<|bos|> é") == 0
    shown = capsys.readouterr().out
    assert "\\x1b" in shown and "\x1b[2J" not in shown
    assert "261" not in shown  # a mark in a text is text


def test_a_tokenizer_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NANOCHAT_HOME", str(tmp_path))
    assert nanochat(monkeypatch, "tokenizer", "show", "theirs") == 1
    assert "no tokenizer at" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("piece", "text"),
    [(b" the", " the"), (b"\n", "\\n"), (b"\x1b[", "\\x1b["), (b"\xed\x95", "\\xed\\x95"), ("가".encode(), "가")],
)
def test_a_token_is_shown_as_one_line(piece: bytes, text: str) -> None:
    assert printable(piece) == text
