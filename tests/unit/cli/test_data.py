"""`nanochat data` as it is typed."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from nanochat.data.shards import Shards
from nanochat.protocol.jobs import Job
from tests.unit.cli.conftest import FakeGateway, nanochat
from tests.unit.data.hub.conftest import hub  # noqa: F401  # fixture
from tests.unit.data.hub.fake_hub import FakeHub


def job(**values: Any) -> dict[str, Any]:
    shown = Job(id="job_1", kind="dataset", name="dataset-1", status="queued", created_at=time.time())
    return shown.model_copy(update=values).model_dump(mode="json")


def test_the_list_says_what_is_there_and_what_can_be_downloaded(
    gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = {"num_shards": 0, "is_builtin": False, "source": None, "num_shards_available": None, "error": None}
    public = {**plain, "id": "climbmix", "source": "hf://a/b", "num_shards_available": 6543}
    mine, bad = {**plain, "id": "mine", "num_shards": 3}, {**plain, "id": "bad", "error": "one shard"}
    gateway.answers["GET /v1/datasets"] = (200, {"data": [public, mine, bad]})
    assert nanochat(monkeypatch, "data", "list") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "climbmix 0 hf://a/b, 6543 shards in all mine 3 bad 0 one shard" in printed


@pytest.mark.parametrize(
    ("arguments", "path", "body"),
    [
        (("climbmix", "--shards", "8"), "climbmix", {"num_shards": 8}),
        (("climbmix", "--name", "mix"), "mix", {"source": "hf://karpathy/climbmix-400b-shuffle"}),
        (("hf://acme/text@v1/ko",), "acme--text--v1--ko", {"source": "hf://acme/text@v1/ko"}),
        (("hf://acme/text", "--name", "t", "--shards", "1"), "t", {"source": "hf://acme/text", "num_shards": 1}),
    ],
)
def test_a_download_is_submitted_and_followed(
    gateway: FakeGateway,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    path: str,
    body: dict[str, Any],
) -> None:
    gateway.answers[f"POST /v1/datasets/{path}/download"] = (202, job())
    gateway.answers["GET /v1/jobs/job_1"] = (200, job(status="succeeded", output=path, metrics={"num_shards": 9.0}))
    assert nanochat(monkeypatch, "data", "download", *arguments) == 0
    assert gateway.asked[0].body == body
    assert gateway.asked[0].headers["idempotency-key"]
    assert f"{path} is there: 9 shards" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("dataset", "said"), [("wikipedia", "known are climbmix, fineweb-edu"), ("hf://acme", "names no dataset")]
)
def test_what_is_no_dataset_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], dataset: str, said: str
) -> None:
    assert nanochat(monkeypatch, "data", "download", dataset) == 1
    assert said in capsys.readouterr().err


def test_a_download_without_services(
    hub: FakeHub,  # noqa: F811
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("NANOCHAT_HUB_URL", hub.url)
    assert nanochat(monkeypatch, "data", "download", "hf://acme/text", "--shards", "2", "--local") == 0
    assert "acme--text is there: 3 shards" in capsys.readouterr().out
    assert len(list((home / "datasets" / "acme--text").glob("*.parquet"))) == 3
    monkeypatch.setenv("NANOCHAT_HUB_URL", "ftp://x")
    assert nanochat(monkeypatch, "data", "download", "hf://acme/text", "--local") == 2


def test_text_is_repackaged_and_what_became_of_it_said(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text("".join(json.dumps({"body": text}) + "\n" for text in ["", "x" * 500, *"abcdefgh"]))
    options = ("--column", "body", "--shards", "2", "--max-document-chars", "100")
    assert nanochat(monkeypatch, "data", "repackage", str(source), "mine", *options) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "10 documents read, 1 empty ones dropped, 1 long ones split: 13 of 508 characters in 3 shards" in said
    with Shards(home / "datasets" / "mine") as shards:
        assert len([*shards.documents("train"), *shards.documents("val")]) == 13
    assert nanochat(monkeypatch, "data", "repackage", str(source), "mine", *options) == 1
    assert "exists already" in capsys.readouterr().err
    source.write_text('{"body": "x"}\noops\n')
    assert nanochat(monkeypatch, "data", "repackage", str(source), str(tmp_path / "out"), *options) == 1
    assert f"{source}, line 2 is not JSON" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
