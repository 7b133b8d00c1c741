"""/v1/jobs as a client sees it. What the stores do in detail is in tests/unit/jobs."""

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from nanochat_trainer import validation
from nanochat_trainer.state import TrainerState

from .conftest import make_dataset, make_tokenizer

TOKENIZER = {"kind": "tokenizer", "name": "t", "config": {"dataset": "python-docs"}}


def error_of(response: Any, status: int = 422) -> dict[str, Any]:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return dict(error)


def test_a_job_is_accepted_without_a_broker(client: TestClient) -> None:
    response = client.post("/v1/jobs", json=TOKENIZER)
    assert response.status_code == 202
    job = response.json()
    assert (job["object"], job["status"], job["name"]) == ("job", "queued", "t")
    assert client.get(f"/v1/jobs/{job['id']}").json() == job
    assert response.headers["x-request-id"]


def test_a_submission_repeated_with_its_key_is_one_job(client: TestClient) -> None:
    headers = {"Idempotency-Key": "k"}
    first, second = (client.post("/v1/jobs", json=TOKENIZER, headers=headers).json() for _ in range(2))
    assert first["id"] == second["id"]
    other = client.post("/v1/jobs", json={**TOKENIZER, "name": "u"}, headers=headers)
    assert error_of(other, 409)["code"] == "conflict"


def test_a_repeated_submission_is_answered_even_when_it_could_not_be_made_anew(client: TestClient, home: Path) -> None:
    headers = {"Idempotency-Key": "k"}
    first = client.post("/v1/jobs", json=TOKENIZER, headers=headers).json()
    make_tokenizer(home, "t")  # as the job would have
    assert client.post("/v1/jobs", json=TOKENIZER, headers=headers).json()["id"] == first["id"]
    assert error_of(client.post("/v1/jobs", json=TOKENIZER))["param"] == "name"


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"kind": "cook"}, "kind", "'cook'"),
        ({"kind": "tokenizer", "nmae": "x"}, "nmae", "not a known key"),
        ({"kind": "tokenizer", "name": "../x"}, "name", "pattern"),
        ({"kind": "tokenizer", "priority": 10}, "priority", "10"),
        ({"kind": "tokenizer", "num_processes": 0}, "num_processes", "0"),
        ({"kind": "tokenizer", "config": {"vocab": 1}}, "config.vocab", "not a known key"),
        ({"kind": "tokenizer", "config": {"vocab_size": "512"}}, "config.vocab_size", "'512'"),
        ({"kind": "tokenizer", "config": {"vocab_size": 100}}, "config.vocab_size", "265"),
        ({"kind": "tokenizer", "config": {"dataset": "none"}}, "config.dataset", "not on this machine"),
        ({"kind": "tokenizer", "config": {"dataset": "/etc"}}, "config.dataset", "NANOCHAT_DATA_ROOTS"),
        ({"kind": "pretrain", "config": {"depth": 0}}, "config.depth", "0"),
        ({"kind": "pretrain", "config": {"head_dim": 65}}, "config.head_dim", "odd"),
        (
            {"kind": "pretrain", "config": {"max_seq_len": 512, "device_batch_size": 4, "total_batch_size": 5000}},
            "config.total_batch_size",
            "use 4096",
        ),
        (
            {"kind": "pretrain", "num_processes": 3, "config": {"max_seq_len": 512, "total_batch_size": 4096}},
            "config.total_batch_size",
            "3 processes); use 4608",
        ),
        ({"kind": "pretrain", "config": {"depth": 256}}, "config.depth", "this machine has"),
        (
            {"kind": "pipeline", "config": {"profile": "demo", "overrides": {"pretrain": {"depth": 256}}}},
            "config.depth",
            "stage pretrain",
        ),
        ({"kind": "pretrain", "config": {"depth": 1, "aspect_ratio": 8, "head_dim": 8}}, "config.head_dim", "smear"),
        ({"kind": "pretrain", "name": "job_mine"}, "name", "stand for jobs; choose another"),
        ({"kind": "pretrain", "config": {"run": "job_mine"}}, "config.run", "stand for jobs; choose another"),
        ({"kind": "tokenizer", "config": {"dataset": "/a\0b"}}, "config.dataset", "NUL"),
        ({"kind": "sft", "config": {"mixture": [{"task": "spelling"}]}}, "config.checkpoint", "required"),
        ({"kind": "sft", "config": {"checkpoint": "c", "mixture": []}}, "config.mixture", "at least 1"),
        ({"kind": "sft", "config": {"checkpoint": "c", "mixture": [{"task": "flying"}]}}, "config.mixture", "flying"),
        (
            {"kind": "sft", "config": {"checkpoint": "c", "mixture": [{"task": "spelling"}]}},
            "config.checkpoint",
            "no complete checkpoint",
        ),
        (
            {"kind": "sft", "config": {"checkpoint": "c", "mixture": [{"task": "spelling"}, {"task": "gsm8k"}]}},
            "config.mixture.1.task",
            "nanochat data download gsm8k",
        ),
        (
            {
                "kind": "sft",
                "config": {
                    "checkpoint": "c",
                    "mixture": [{"task": "spelling"}],
                    "chatcore_every": 1,
                    "chatcore_tasks": ["flying"],
                },
            },
            "config.chatcore_tasks",
            "flying",
        ),
        ({"kind": "tokenizer", "config": {"mixture": [{"task": "flying"}]}}, "config.mixture", "flying"),
        ({"kind": "evaluate", "config": {"checkpoint": "c", "tasks": ["flying"]}}, "config.tasks", "flying"),
        ({"kind": "evaluate", "config": {"checkpoint": "c", "tasks": ["arc_easy"]}}, "config.tasks", "no folder"),
        (
            {"kind": "evaluate", "config": {"checkpoint": "c", "tasks": ["arc_easy"], "evals": ["core"]}},
            "config.checkpoint",
            "no complete checkpoint",
        ),
        ({"kind": "evaluate", "config": {"checkpoint": "job_none"}}, "config.checkpoint", "no job"),
        ({"kind": "rl", "config": {"checkpoint": "c", "task": "flying"}}, "config.task", "is not known"),
        ({"kind": "rl", "config": {"checkpoint": "c", "task": "smalltalk"}}, "config.task", "gives no reward"),
        ({"kind": "rl", "config": {"checkpoint": "c", "task": "counting"}}, "config.checkpoint", "no complete"),
        ({"kind": "rl", "config": {"checkpoint": "c", "task": "gsm8k"}}, "config.task", "no folder"),
        (
            {"kind": "rl", "config": {"checkpoint": "c", "task": "counting", "num_samples": 1}},
            "config.num_samples",
            "2",
        ),
        ({"kind": "rl", "config": {"checkpoint": "c", "task": "counting", "top_k": 1}}, "config", "all answers"),
        (
            {"kind": "rl", "num_processes": 3, "config": {"checkpoint": "c", "task": "counting"}},
            "config.examples_per_step",
            "use 15",
        ),
        ({"kind": "pipeline", "config": {"profile": "none"}}, "config.profile", "demo"),
        (
            {"kind": "pipeline", "config": {"profile": "demo", "overrides": {"pretrain": {"head_dim": 63}}}},
            "config.head_dim",
            "stage pretrain",
        ),
    ],
)
def test_a_bad_job_is_refused_by_the_name_of_its_field(
    client: TestClient, state: TrainerState, body: dict[str, Any], param: str, words: str
) -> None:
    error = error_of(client.post("/v1/jobs", json=body))
    assert error["param"] == param
    assert words in error["message"]
    assert state.jobs.find() == []


def test_a_benchmark_without_the_split_is_refused_before_the_job_is_stored(client: TestClient, home: Path) -> None:
    folder = home / "datasets" / "gsm8k"
    folder.mkdir(parents=True)
    (folder / "test.jsonl").write_text("")
    mixture: list[dict[str, Any]] = [{"task": "gsm8k"}]
    body = {"kind": "sft", "config": {"checkpoint": "c", "mixture": mixture}}
    error = error_of(client.post("/v1/jobs", json=body))
    assert (error["param"], error["code"]) == ("config.mixture.0.task", "data_error")
    assert "needs the split train" in error["message"] and "gsm8k holds test" in error["message"]
    mixture[0]["split"] = "test"
    assert error_of(client.post("/v1/jobs", json=body))["param"] == "config.checkpoint"  # the next thing wrong


@pytest.mark.parametrize("body", [b"{bad", b"[]", b'"text"', b"", b'{"kind": "\xff"}', b"\x00\x01"])
def test_a_body_that_is_no_json_object_is_explained(client: TestClient, body: bytes) -> None:
    error = error_of(client.post("/v1/jobs", content=body, headers={"content-type": "application/json"}))
    assert "JSON object" in error["message"]


def test_an_empty_and_a_truncated_dataset_are_refused(client: TestClient, home: Path) -> None:
    (home / "datasets" / "empty").mkdir(parents=True)
    error = error_of(client.post("/v1/jobs", json={"kind": "tokenizer", "config": {"dataset": "empty"}}))
    assert "holds no *.parquet" in error["message"]
    folder = make_dataset(home / "allowed" / "cut")
    (folder / "shard_00001.parquet").write_bytes(b"PAR1 and then nothing")
    error = error_of(client.post("/v1/jobs", json={"kind": "tokenizer", "config": {"dataset": str(folder)}}))
    assert (error["param"], error["code"]) == ("config.dataset", "data_error")
    assert "shard_00001.parquet" in error["message"]


def test_a_link_that_leads_outside_the_allowed_folders_is_refused(client: TestClient, home: Path) -> None:
    outside = make_dataset(home / "secret")
    (home / "allowed").mkdir()
    (home / "allowed" / "link").symlink_to(outside)
    body = {"kind": "tokenizer", "config": {"dataset": str(home / "allowed" / "link")}}
    assert "outside the allowed folders" in error_of(client.post("/v1/jobs", json=body))["message"]


def test_a_job_of_the_wrong_kind_or_state_gives_no_output(client: TestClient, home: Path) -> None:
    make_dataset(home / "datasets" / "d")
    job_id = client.post("/v1/jobs", json=TOKENIZER).json()["id"]
    body = {"kind": "pretrain", "config": {"dataset": "d", "tokenizer": job_id}}
    assert f"job {job_id} is queued" in error_of(client.post("/v1/jobs", json=body))["message"]
    body = {"kind": "pretrain", "config": {"dataset": job_id}}
    assert "a dataset is needed here" in error_of(client.post("/v1/jobs", json=body))["message"]


def test_a_run_that_has_checkpoints_is_not_written_into_twice(client: TestClient, home: Path) -> None:
    from .checkpoints import make_checkpoint

    make_dataset(home / "datasets" / "d")
    make_tokenizer(home, "default")
    make_checkpoint(home, "r", "pretrain")
    config = {"dataset": "d", "run": "r"}
    assert error_of(client.post("/v1/jobs", json={"kind": "pretrain", "config": config}))["param"] == "config.run"
    resumed = client.post("/v1/jobs", json={"kind": "pretrain", "config": {**config, "resume": True}})
    assert resumed.status_code == 202


def test_two_jobs_that_would_write_to_one_place_are_not_both_accepted(client: TestClient) -> None:
    first = client.post("/v1/jobs", json=TOKENIZER).json()
    error = error_of(client.post("/v1/jobs", json=TOKENIZER), 409)
    assert (error["code"], error["param"]) == ("conflict", "name")
    assert first["id"] in error["message"]


def test_a_model_is_held_against_the_machines_memory_with_its_own_vocabulary(
    client: TestClient, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_dataset(home / "datasets" / "d")
    make_tokenizer(home, "default")
    monkeypatch.setattr(validation, "memory_bytes", lambda: 30_000_000 * validation.BYTES_PER_WEIGHT)
    body = {"kind": "pretrain", "config": {"dataset": "d", "depth": 4}}  # 3.1 million weights beside the vocabulary's
    assert client.post("/v1/jobs", json=body).status_code == 202
    overrides = {"tokenizer": {"vocab_size": 32768}, "pretrain": {"depth": 4, "aspect_ratio": 64, "head_dim": 64}}
    error = error_of(
        client.post("/v1/jobs", json={"kind": "pipeline", "config": {"profile": "demo", "overrides": overrides}})
    )
    assert error["param"] == "config.depth"
    assert "choose a smaller depth" in error["message"]


def test_jobs_are_listed_by_pages_and_filters(client: TestClient) -> None:
    ids = [client.post("/v1/jobs", json={**TOKENIZER, "name": f"t{index}"}).json()["id"] for index in range(3)]
    page = client.get("/v1/jobs", params={"limit": 2}).json()
    assert [job["id"] for job in page["data"]] == ids[:0:-1]
    assert page["has_more"] is True
    page = client.get("/v1/jobs", params={"limit": 2, "after": page["last_id"]}).json()
    assert ([job["id"] for job in page["data"]], page["has_more"]) == ([ids[0]], False)
    assert client.get("/v1/jobs", params={"status": "running"}).json()["data"] == []
    assert error_of(client.get("/v1/jobs", params={"status": "lost"}))["param"] == "status"
    assert error_of(client.get("/v1/jobs", params={"limit": 0}))["param"] == "limit"


def test_cancel_and_retry_answer_with_the_job_or_a_conflict(client: TestClient) -> None:
    job_id = client.post("/v1/jobs", json=TOKENIZER).json()["id"]
    assert error_of(client.post(f"/v1/jobs/{job_id}/retry"), 409)["code"] == "conflict"
    assert client.post(f"/v1/jobs/{job_id}/cancel").json()["status"] == "cancelled"
    assert client.post(f"/v1/jobs/{job_id}/retry").json()["status"] == "queued"


@pytest.mark.parametrize("path", ["", "/events", "/metrics", "/logs"])
def test_an_unknown_job_is_not_found(client: TestClient, path: str) -> None:
    assert error_of(client.get(f"/v1/jobs/job_none{path}"), 404)["code"] == "not_found"


def test_logs_are_text_whole_or_their_end(client: TestClient, home: Path) -> None:
    job_id = client.post("/v1/jobs", json=TOKENIZER).json()["id"]
    assert client.get(f"/v1/jobs/{job_id}/logs").text == ""
    folder = home / "jobs" / job_id
    folder.mkdir(parents=True)
    (folder / "log.txt").write_text("".join(f"line {index}\n" for index in range(1000)))
    assert client.get(f"/v1/jobs/{job_id}/logs").text.count("\n") == 1000
    assert client.get(f"/v1/jobs/{job_id}/logs", params={"tail": 2}).text == "line 998\nline 999\n"


def test_events_are_streamed_to_the_end_and_resume_where_they_were_left(client: TestClient, home: Path) -> None:
    job_id = client.post("/v1/jobs", json=TOKENIZER).json()["id"]
    folder = home / "jobs" / job_id
    folder.mkdir(parents=True)
    (folder / "log.txt").write_text("one\ntwo\n")
    client.post(f"/v1/jobs/{job_id}/cancel")
    text = client.get(f"/v1/jobs/{job_id}/events").text
    ids = [line.removeprefix("id: ") for line in text.splitlines() if line.startswith("id: ")]
    kinds = [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]
    assert kinds == ["log", "status", "status"]
    assert ids == ["0.8", "1.8", "2.8"]
    resumed = client.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": ids[1]}).text
    assert [line for line in resumed.splitlines() if line.startswith("id: ")] == ["id: 2.8"]
    for never_sent in ("x", "9999999999", "1.2.3"):
        bad = client.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": never_sent})
        assert error_of(bad)["param"] == "Last-Event-ID"


def test_the_last_line_of_a_job_that_has_ended_is_told_without_its_end(client: TestClient, home: Path) -> None:
    job_id = client.post("/v1/jobs", json=TOKENIZER).json()["id"]
    write_log(home, job_id, "whole\nkilled in the mid")
    client.post(f"/v1/jobs/{job_id}/cancel")
    told = events_of(client.get(f"/v1/jobs/{job_id}/events").text, "log")
    assert [event["lines"] for event in told] == [["whole", "killed in the mid"]]


def test_a_pipelines_events_tell_its_stages_logs_one_after_another(client: TestClient, home: Path) -> None:
    body = {"kind": "pipeline", "config": {"profile": "demo"}}
    job = client.post("/v1/jobs", json=body).json()
    write_log(home, job["stages"][0], "first\nlast")
    write_log(home, job["stages"][1], "begun\n")
    client.post(f"/v1/jobs/{job['id']}/cancel")
    text = client.get(f"/v1/jobs/{job['id']}/events").text
    expected = [
        {"stage": "tokenizer", "lines": ["first", "last"]},
        {"stage": "pretrain", "lines": ["begun"]},
    ]
    assert events_of(text, "log") == expected
    resumed = client.get(f"/v1/jobs/{job['id']}/events", headers={"Last-Event-ID": "0.10"}).text
    assert events_of(resumed, "log") == expected[1:]


def write_log(home: Path, job_id: str, text: str) -> None:
    (home / "jobs" / job_id).mkdir(parents=True)
    (home / "jobs" / job_id / "log.txt").write_text(text)


def events_of(stream: str, kind: str) -> list[dict[str, Any]]:
    lines = stream.splitlines()
    told = [lines[index + 2] for index, line in enumerate(lines) if line.startswith("id: ")]
    kinds = [lines[index + 1] for index, line in enumerate(lines) if line.startswith("id: ")]
    data = [json.loads(line.removeprefix("data: ")) for line in told]
    return [values for values, found in zip(data, kinds, strict=True) if found == f"event: {kind}"]
