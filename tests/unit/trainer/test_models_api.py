"""/v1/checkpoints, /v1/models, /v1/datasets, health and metrics."""

import re
import threading
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from nanochat.data.catalogue import public_datasets
from nanochat.errors import Unavailable
from nanochat.jobs.models import ModelStore
from nanochat.jobs.store import JobStore
from nanochat_trainer.state import TrainerState

from .checkpoints import make_checkpoint
from .conftest import make_dataset
from .test_jobs_api import error_of


def test_checkpoints_are_listed_newest_first_and_found_by_id_run_or_stage(client: TestClient, home: Path) -> None:
    old, new = (make_checkpoint(home, "r", step=step) for step in (5, 9))
    listed = client.get("/v1/checkpoints").json()["data"]
    assert [checkpoint["id"] for checkpoint in listed] == [new, old]
    shown = client.get(f"/v1/checkpoints/{old}").json()
    assert (shown["run"], shown["stage"], shown["step"]) == ("r", "sft", 5)
    assert (shown["config"]["n_layer"], shown["metrics"]) == (1, {"val_bpb": 1.5})
    assert client.get("/v1/checkpoints/r").json()["id"] == new
    assert error_of(client.get("/v1/checkpoints/r/sft/step_000007"), 404)["code"] == "not_found"


def test_without_a_replica_a_promotion_succeeds_at_once_and_says_so(client: TestClient, home: Path) -> None:
    checkpoint = make_checkpoint(home, "r")
    model = client.post("/v1/models/m/promote", json={"checkpoint": checkpoint}).json()
    assert (model["checkpoint"], model["replicas"]) == (checkpoint, [])
    assert "no replica is live" in model["message"]


def test_a_promotion_waits_for_every_live_replica(client: TestClient, home: Path, state: TrainerState) -> None:
    checkpoint = make_checkpoint(home, "r")
    state.models.heartbeat("r1", "m", None)
    state.models.heartbeat("r2", "m", checkpoint)
    later = threading.Timer(0.1, ModelStore(state.database).heartbeat, ("r1", "m", checkpoint))
    later.start()
    model = client.post("/v1/models/m/promote", json={"checkpoint": checkpoint}).json()
    later.join()
    assert model["replicas"] == ["r1", "r2"]
    assert model["message"] is None


def test_a_replica_that_does_not_follow_is_named_and_the_choice_stands(
    client: TestClient, home: Path, state: TrainerState
) -> None:
    checkpoint = make_checkpoint(home, "r")
    state.models.heartbeat("slow-one", "m", None, "out of memory")
    error = error_of(client.post("/v1/models/m/promote", json={"checkpoint": checkpoint}), 504)
    assert error["code"] == "deadline_exceeded"
    assert "slow-one (serves nothing, which says: out of memory)" in error["message"]
    served = state.models.served("m")
    assert served is not None
    assert served.checkpoint == checkpoint


def test_a_checkpoint_with_a_byte_changed_is_refused_and_the_old_one_stays(
    client: TestClient, home: Path, state: TrainerState
) -> None:
    good, bad = make_checkpoint(home, "good"), make_checkpoint(home, "bad")
    client.post("/v1/models/m/promote", json={"checkpoint": good})
    weights = home / "checkpoints" / bad / "model.safetensors"
    weights.write_bytes(b"W" + weights.read_bytes()[1:])
    error = error_of(client.post("/v1/models/m/promote", json={"checkpoint": bad}), 409)
    assert error["code"] == "checkpoint_corrupt"
    assert "model.safetensors" in error["message"]
    served = state.models.served("m")
    assert served is not None
    assert served.checkpoint == good


def test_rollback_returns_to_the_checkpoint_before_unless_it_is_damaged(client: TestClient, home: Path) -> None:
    first, second = make_checkpoint(home, "a"), make_checkpoint(home, "b")
    assert error_of(client.post("/v1/models/m/rollback"), 404)
    client.post("/v1/models/m/promote", json={"checkpoint": first})
    assert error_of(client.post("/v1/models/m/rollback"), 409)
    client.post("/v1/models/m/promote", json={"checkpoint": second})
    assert client.post("/v1/models/m/rollback").json()["checkpoint"] == first
    (home / "checkpoints" / second / "model.safetensors").write_bytes(b"")
    assert error_of(client.post("/v1/models/m/rollback"), 409)["code"] == "checkpoint_corrupt"
    assert client.get("/v1/models").json()["data"][0]["checkpoint"] == first


@pytest.mark.parametrize("reference", ["none", "job_none", "/etc", "../..", "r/sft/step_000999"])
def test_what_is_no_checkpoint_is_not_promoted(client: TestClient, reference: str) -> None:
    response = client.post("/v1/models/m/promote", json={"checkpoint": reference})
    assert response.status_code in (404, 422)
    assert response.json()["error"]["message"]


def test_a_checkpoint_named_by_its_path_is_promoted_by_its_id(client: TestClient, home: Path) -> None:
    checkpoint = make_checkpoint(home, "r")
    path = str(home / "checkpoints" / checkpoint)
    assert client.post("/v1/models/m/promote", json={"checkpoint": path}).json()["checkpoint"] == checkpoint


def test_datasets_are_listed_with_what_is_wrong_with_them(client: TestClient, home: Path) -> None:
    make_dataset(home / "datasets" / "good")
    (home / "datasets" / "empty").mkdir()
    listed = {dataset["id"]: dataset for dataset in client.get("/v1/datasets").json()["data"]}
    assert set(listed) == {"good", "empty", "python-docs", *public_datasets()}
    assert (listed["good"]["num_shards"], listed["good"]["size_bytes"], listed["good"]["error"]) == (2, 48, None)
    assert "no *.parquet" in listed["empty"]["error"]
    assert listed["python-docs"]["is_builtin"] is True
    assert listed["climbmix"] == {
        "id": "climbmix",
        "object": "dataset",
        "is_builtin": False,
        "source": "hf://karpathy/climbmix-400b-shuffle",
        "num_shards_available": 6543,
        "num_shards": 0,
        "size_bytes": 0,
        "error": None,
    }


def test_a_benchmark_is_listed_with_its_files_whatever_their_form(client: TestClient, home: Path) -> None:
    folder = home / "datasets" / "gsm8k"
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text("{}\n")
    listed = {dataset["id"]: dataset for dataset in client.get("/v1/datasets").json()["data"]}["gsm8k"]
    assert (listed["num_shards"], listed["size_bytes"], listed["error"]) == (2, 6, None)
    assert listed["num_shards_available"] == 2


def test_a_download_is_a_job_of_its_own(client: TestClient) -> None:
    response = client.post("/v1/datasets/climbmix/download", json={"num_shards": 8}, headers={"idempotency-key": "a"})
    assert response.status_code == 202
    job = response.json()
    assert (job["kind"], job["status"], job["num_processes"]) == ("dataset", "queued", 1)
    assert job["config"] == {"name": "climbmix", "num_shards": 8}
    again = client.post("/v1/datasets/climbmix/download", json={"num_shards": 8}, headers={"idempotency-key": "a"})
    assert again.json()["id"] == job["id"]
    error = error_of(client.post("/v1/datasets/climbmix/download"), 409)
    assert job["id"] in error["message"]
    other = client.post("/v1/datasets/wiki/download", json={"source": "hf://acme/wiki@v1/ko"})
    assert other.json()["config"] == {"name": "wiki", "source": "hf://acme/wiki@v1/ko"}


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        ("x", {}, "known are climbmix, fineweb-edu"),
        ("x", {"source": "hf://nobody"}, "names no dataset of the hub"),
        ("x", {"source": "relative/path"}, "neither hf://owner/dataset nor an absolute path"),
        ("x", {"source": "/etc"}, "outside the allowed folders"),
        ("climbmix", {"num_shards": 0}, "num_shards"),
        ("climbmix", {"shards": 3}, "shards"),
        ("python-docs", {}, "made on first use"),
        ("job_1", {}, "reserved|stand for jobs"),
    ],
)
def test_what_cannot_be_downloaded_is_refused(client: TestClient, name: str, body: dict[str, Any], said: str) -> None:
    error = error_of(client.post(f"/v1/datasets/{name}/download", json=body))
    assert re.search(said, error["message"]), error


def test_ready_without_a_broker_but_not_without_tables(client: TestClient, home: Path) -> None:
    assert client.get("/health/live").json() == {"status": "ok"}
    ready = client.get("/health/ready")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert "broker" in ready.json()["reasons"][0]
    (home / "nanochat.db").unlink()
    ready = client.get("/health/ready")
    assert ready.status_code == 503
    assert "no database" in ready.json()["reasons"][0]


def test_metrics_count_jobs_and_show_the_workers_pulse(client: TestClient, state: TrainerState) -> None:
    client.post("/v1/jobs", json={"kind": "tokenizer", "config": {"dataset": "python-docs"}})
    text = client.get("/metrics").text
    assert 'nanochat_jobs{status="queued"} 1.0' in text
    assert 'nanochat_jobs{status="running"} 0.0' in text
    assert "\nnanochat_worker_heartbeat_age_seconds " not in text
    state.leases.beat("w")
    assert "\nnanochat_worker_heartbeat_age_seconds 0." in client.get("/metrics").text


def test_metrics_tell_how_many_jobs_wait_and_how_long(client: TestClient) -> None:
    assert "nanochat_queue_oldest_seconds 0.0\n" in client.get("/metrics").text
    client.post("/v1/jobs", json={"kind": "pipeline", "config": {"profile": "demo"}})
    text = client.get("/metrics").text
    assert "\nnanochat_queue_jobs 1.0\n" in text
    assert "nanochat_queue_oldest_seconds 0.0\n" not in text


def test_metrics_of_what_is_away_are_absent_and_the_rest_is_there(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: JobStore) -> None:
        raise Unavailable("the database does not answer.")

    monkeypatch.setattr(JobStore, "waiting", fail)
    text = client.get("/metrics").text
    assert "# TYPE nanochat_queue_jobs gauge\n" in text
    assert "\nnanochat_queue_jobs " not in text
    assert "\nnanochat_broker_messages " not in text
    assert "\nnanochat_home_free_bytes " in text


def test_a_first_loss_of_a_worker_is_an_increase(client: TestClient) -> None:
    series = 'nanochat_job_attempts_total{kind="sft",outcome="worker_lost"} 0.0'
    assert series in client.get("/metrics").text


def test_an_unknown_address_is_told_as_such(client: TestClient) -> None:
    assert error_of(client.get("/v1/nothing"), 404)["code"] == "not_found"
    assert error_of(client.put("/v1/jobs"), 405)["code"] == "http_error"
