"""Homes with jobs, a promoted model and checkpoints; real databases of both kinds."""

from pathlib import Path

import pytest

from nanochat.backup.save import save
from nanochat.jobs.database import Database
from nanochat.jobs.leases import Leases
from nanochat.jobs.models import ModelStore
from nanochat.jobs.profiles import load_profile
from nanochat.jobs.store import JobStore
from nanochat.protocol.jobs import JobSpec
from tests.integration.inference.chain_model import ABAB, XYXY, save_chain
from tests.integration.jobs.conftest import empty_postgres_url, postgres_url  # noqa: F401  # fixtures

NUM_STAGES = len(load_profile("demo").stages)
NUM_JOBS = 1 + NUM_STAGES + 1  # the pipeline, its stages, and a job of its own


@pytest.fixture
def full_home(tmp_path: Path) -> Path:
    """Two checkpoints, the second promoted; a pipeline with one stage done; a log; a dataset; what is not kept."""
    home = tmp_path / "full"
    home.mkdir()
    save_chain(home, "nano", 1, ABAB)
    save_chain(home, "nano", 2, XYXY)
    for name, content in {
        "tokenizers/t/tokenizer.json": "{}",
        "jobs/job_1/log.txt": "hello\n",
        "datasets/mine/shard_00000.parquet": "PAR1",
        "logs/gateway.log": "not kept",
        "stack.json": "not kept",
        "jobs/job_1/.spec.json.writing-1": "not kept",
    }.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(content)
    fill(Database(sqlite_url(home)))
    return home


def fill(database: Database) -> None:
    database.upgrade()
    jobs, leases, models = JobStore(database), Leases(database), ModelStore(database)
    parent = jobs.submit(JobSpec(kind="pipeline", name="p", config={"profile": "demo"}), idempotency_key="once")
    lease = leases.claim(parent.stages[0], "w")
    assert lease is not None
    leases.finish(lease, "succeeded", output="t", values={"bytes_per_token": 4.2})
    jobs.submit(JobSpec(kind="tokenizer", name="own"))
    models.promote("nanochat", "nano/sft/step_000001")
    models.promote("nanochat", "nano/sft/step_000002")
    models.heartbeat("r1", "nanochat", "nano/sft/step_000002", None)
    database.close()


def sqlite_url(home: Path) -> str:
    return f"sqlite:///{home / 'nanochat.db'}"


def saved(home: Path, file: Path, *, url: str = "", with_datasets: bool = False) -> Path:
    with file.open("xb") as stream:
        save(home, url or sqlite_url(home), stream, version="test", with_datasets=with_datasets)
    return file
