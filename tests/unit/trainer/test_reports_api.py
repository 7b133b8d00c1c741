"""/v1/reports: a page made of the files at hand, whose policy lets it run nothing."""

from pathlib import Path

from fastapi.testclient import TestClient

from nanochat.protocol.jobs import RunSpec
from nanochat.report.html import content_security_policy


def make_job(home: Path) -> None:
    """That has begun, and been lost in the middle of a line."""
    folder = home / "jobs" / "job_1"
    folder.mkdir(parents=True)
    spec = RunSpec(job_id="job_1", kind="pretrain", name="mine", config={}, home=str(home))
    (folder / "spec.json").write_text(spec.model_dump_json())
    (folder / "progress.jsonl").write_text('{"type":"progress","time":1.0,"step":3,"num_steps":10}\n{"type":"met')


def test_a_run_that_has_not_ended_has_a_page(client: TestClient, home: Path) -> None:
    make_job(home)
    response = client.get("/v1/reports/mine")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    policy = response.headers["content-security-policy"].split("; ")
    assert policy[:4] == content_security_policy().split("; ") and "sandbox" in policy
    assert "at step 3 of 10 (30%)" in response.text
    assert not (home / "reports").exists()  # the worker alone writes to the home

    markdown = client.get("/v1/reports/mine?format=markdown")
    assert markdown.headers["content-type"].startswith("text/markdown")
    assert markdown.text.startswith("# Run mine")


def test_an_unknown_run_is_not_found_and_a_bad_name_refused(client: TestClient, home: Path) -> None:
    make_job(home)
    response = client.get("/v1/reports/other")
    assert response.status_code == 404
    assert "there is mine" in response.json()["error"]["message"]
    assert client.get("/v1/reports/.hidden").status_code == 422


def test_a_report_can_be_asked_for_as_a_job(client: TestClient) -> None:
    response = client.post("/v1/jobs", json={"kind": "report", "config": {"run": "mine"}})
    assert response.status_code == 202
    assert client.post("/v1/jobs", json={"kind": "report", "config": {}}).status_code == 422
