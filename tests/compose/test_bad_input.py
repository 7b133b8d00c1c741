"""What is wrong with a machine or its settings is said in one line, before anything runs halfway."""

import json
import re
import socket
from pathlib import Path

import pytest

from tests.compose.deployment import Deployment, docker, wait_until


def drop(deployment: Deployment, name: str) -> None:
    """Take a variable out of the project's .env."""
    text = deployment.env_file.read_text()
    deployment.env_file.write_text(re.sub(rf"^{name}=.*\n", "", text, flags=re.MULTILINE))


def last_line(text: str) -> str:
    return [line for line in text.splitlines() if line.strip()][-1]


@pytest.mark.parametrize("name", ["POSTGRES_PASSWORD", "REDIS_PASSWORD", "NANOCHAT_ADMIN_KEYS"])
def test_a_missing_secret_is_named_with_what_to_do(bystander: Deployment, name: str) -> None:
    drop(bystander, name)
    refused = bystander.run("up", "--detach")
    assert refused.returncode != 0
    assert name in last_line(refused.stderr) and "make env" in last_line(refused.stderr)
    assert docker("ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={bystander.project}") == ""


def test_a_port_in_use_is_named(bystander: Deployment) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", bystander.port))
        taken.listen()
        refused = bystander.run("up", "--detach", "--no-deps", "gateway")
    assert refused.returncode != 0
    assert re.search(rf"{bystander.port}.*(already|in use)", last_line(refused.stderr))


def test_a_folder_of_data_that_is_missing_is_named(bystander: Deployment, tmp_path: Path) -> None:
    refused = bystander.run("up", "--detach", "--no-deps", "trainer", DATA_FOLDER=str(tmp_path / "none"))
    assert refused.returncode != 0
    assert f"{tmp_path / 'none'}" in last_line(refused.stderr)


def test_without_a_gpu_the_gpu_file_says_so(bystander: Deployment) -> None:
    if "nvidia" in docker("info", "--format", "{{json .Runtimes}}"):
        pytest.skip("the engine knows GPUs")
    stand_in = "nanochat/inference:without-gpu-cuda"  # of a version that nobody has
    docker("tag", "nanochat/inference:dev", stand_in)
    try:
        refused = bystander.run(
            *("up", "--detach", "--no-deps", "--no-build", "inference"),
            files=("compose.yaml", "compose.gpu.yaml"),
            NANOCHAT_VERSION="without-gpu",
        )
        bystander.do("down", files=("compose.yaml", "compose.gpu.yaml"), NANOCHAT_VERSION="without-gpu")
    finally:
        docker("rmi", stand_in)
    assert refused.returncode != 0
    assert 'could not select device driver "nvidia"' in last_line(refused.stderr)


def test_a_volume_that_belongs_to_somebody_else_is_said_by_the_worker(bystander: Deployment) -> None:
    bystander.run("create", "--no-build", "worker")
    volume = f"{bystander.project}_home"
    code = "import os; os.chown('/home-volume', 0, 0); os.chmod('/home-volume', 0o755)"
    arguments = ["--rm", "--user=0", "--volume", f"{volume}:/home-volume", "--entrypoint=python"]
    docker("run", *arguments, "nanochat/gateway:dev", "-c", code)
    bystander.run("up", "--detach", "--no-deps", "--no-build", "worker")
    wait_until(lambda: "worker_cannot_start" in bystander.logs("worker"), "the worker says why", 60.0)
    line = next(line for line in bystander.logs("worker").splitlines() if "worker_cannot_start" in line)
    assert "/var/lib/nanochat cannot be written by user 10001: Permission denied" in line


def test_a_database_that_is_away_is_said_by_the_trainer(bystander: Deployment) -> None:
    bystander.run("up", "--detach", "--no-deps", "--no-build", "trainer")
    wait_until(lambda: "database_awaited" in bystander.logs("trainer"), "the trainer says what it waits for", 60.0)
    line = next(line for line in bystander.logs("trainer").splitlines() if "database_awaited" in line)
    assert "the database does not answer" in line


def test_a_full_disk_ends_the_job_with_a_word_and_leaves_the_services_running(
    bystander: Deployment, tmp_path: Path
) -> None:
    small = tmp_path / "small.yaml"
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=512k,uid=10001,gid=10001"}
    small.write_text(json.dumps({"volumes": {"home": {"driver_opts": options}}}))
    files = ("compose.yaml", str(small))
    bystander.do("up", "--detach", "--wait", "--no-build", "gateway", "worker", files=files)
    job = bystander.post("/v1/jobs", {"kind": "tokenizer", "config": {"dataset": "python-docs", "vocab_size": 300}})
    wait_until(lambda: bystander.job(job["id"])["status"] == "failed", "the job fails", 120.0)
    error = bystander.job(job["id"])["error"]
    assert (error["code"], "No space left on device" in error["message"]) == ("io_error", True), error
    assert bystander.is_healthy("worker")
