"""What many processes do to one database at the same time, on SQLite and on PostgreSQL."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from nanochat.errors import Conflict, Unavailable
from nanochat.jobs.database import Database
from nanochat.jobs.leases import Leases, Report
from nanochat.jobs.models import ModelStore
from nanochat.jobs.store import JobStore
from nanochat.jobs.tables import SCHEMA_REVISION
from nanochat.protocol.jobs import Job, JobError, JobSpec
from nanochat.protocol.progress import Metric, Progress

from .conftest import Stack

NUM_RIVALS = 8
PIPELINE = JobSpec(kind="pipeline", name="p", config={"profile": "demo"})


def test_of_many_workers_one_gets_the_job(database: Database) -> None:
    job = JobStore(database).submit(JobSpec(kind="tokenizer"))
    leases = Leases(database)
    with ThreadPoolExecutor(NUM_RIVALS) as pool:
        claims = list(pool.map(lambda index: leases.claim(job.id, f"w{index}"), range(NUM_RIVALS)))
    assert sum(claim is not None for claim in claims) == 1
    assert JobStore(database).get(job.id).attempt == 1


def test_of_many_submissions_with_one_key_one_makes_a_job(database: Database) -> None:
    jobs = JobStore(database)
    with ThreadPoolExecutor(NUM_RIVALS) as pool:
        made = list(pool.map(lambda _: jobs.submit(PIPELINE, idempotency_key="k"), range(NUM_RIVALS)))
    assert len({job.id for job in made}) == 1
    assert len(jobs.find()) == 6
    assert len(made[0].stages) == 5


def test_of_many_submissions_for_one_place_one_makes_a_job(database: Database) -> None:
    jobs = JobStore(database)

    def submit(_: int) -> Job | None:
        try:
            return jobs.submit(JobSpec(kind="tokenizer", name="t"))
        except Conflict:
            return None

    with ThreadPoolExecutor(NUM_RIVALS) as pool:
        made = list(pool.map(submit, range(NUM_RIVALS)))
    assert sum(job is not None for job in made) == 1
    assert len(jobs.find()) == 1


def test_a_database_that_lost_its_tables_is_unavailable(database: Database) -> None:
    with database.write() as session:
        session.execute(text("DROP TABLE workers"))
    with pytest.raises(Unavailable, match="workers"):
        Leases(database).beat("w")


def test_events_are_numbered_without_a_gap_whoever_writes_them(database: Database) -> None:
    jobs, leases = JobStore(database), Leases(database)
    job = jobs.submit(JobSpec(kind="tokenizer"))
    lease = leases.claim(job.id, "w")
    assert lease is not None

    def record(step: int) -> None:
        metric = Metric(time=0.0, step=step, values={"loss": 1.0})
        leases.record(lease, Report(offset=step, metrics=[metric]))

    with ThreadPoolExecutor(NUM_RIVALS) as pool:
        list(pool.map(record, range(20)))
        jobs.cancel(job.id)
    assert [event.number for event in jobs.events(job.id)] == list(range(1, 23))


def test_cancelling_a_pipeline_while_its_stage_reports_locks_nobody_out(database: Database) -> None:
    jobs, leases = JobStore(database), Leases(database)
    parent = jobs.submit(PIPELINE)
    lease = leases.claim(parent.stages[0], "w")
    assert lease is not None

    def work(index: int) -> None:
        progress = Progress(time=0.0, step=index, num_steps=40)
        leases.record(lease, Report(offset=index, progress=progress))
        leases.renew(lease)
        if index % 4 == 0:
            jobs.cancel(parent.id)

    with ThreadPoolExecutor(NUM_RIVALS) as pool:
        list(pool.map(work, range(40)))
    leases.finish(lease, "cancelled")
    assert jobs.get(parent.id).status == "cancelled"


def test_reaping_from_several_trainers_ends_a_lease_once(database: Database) -> None:
    jobs = JobStore(database)
    job = jobs.submit(JobSpec(kind="tokenizer", max_attempts=2))
    dead = Leases(database, lease_s=-1.0)
    assert dead.claim(job.id, "w") is not None
    with ThreadPoolExecutor(NUM_RIVALS) as pool:
        reaped = [found for part in pool.map(lambda _: dead.reap(), range(NUM_RIVALS)) for found in part]
    assert [found.id for found in reaped] == [job.id]
    assert jobs.get(job.id).status == "queued"


def test_a_whole_pipeline_lives_in_either_database(database: Database) -> None:
    jobs, leases = JobStore(database), Leases(database)
    parent = jobs.submit(PIPELINE)
    first, second, *_ = parent.stages
    lease = leases.claim(first, "w")
    assert lease is not None
    leases.finish(lease, "succeeded", output="t", values={"bytes_per_token": 4.2})
    lease = leases.claim(second, "w")
    assert lease is not None
    leases.finish(lease, "failed", error=JobError(code="data_error", message="…", log_tail=["\N{SNOWMAN}"]))
    failed = jobs.get(parent.id)
    assert failed.error is not None
    assert failed.error.log_tail == ["\N{SNOWMAN}"]
    assert failed.metrics == {"bytes_per_token": 4.2}
    assert jobs.retry(parent.id).error is None
    assert [job.id for job in jobs.dispatchable()] == [second]


def test_models_and_replicas_live_in_either_database(database: Database) -> None:
    models = ModelStore(database)
    with ThreadPoolExecutor(NUM_RIVALS) as pool:
        list(pool.map(lambda index: models.heartbeat(f"r{index % 2}", "m", f"c{index}"), range(NUM_RIVALS)))
        list(pool.map(lambda _: models.promote("m", "a"), range(NUM_RIVALS)))
    models.promote("m", "b")
    choice = models.rollback("m")
    assert (choice.checkpoint, choice.generation) == ("a", 3)
    assert [replica.id for replica in models.live_replicas("m")] == ["r0", "r1"]


def test_postgres_is_upgraded_by_one_of_many(empty_postgres_url: str) -> None:
    databases = [Database(empty_postgres_url) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(Database.upgrade, databases))
    for database in databases:
        assert database.revision() == SCHEMA_REVISION
        database.close()


@pytest.mark.slow
def test_trainer_and_worker_run_a_job_on_postgres(stack_on_postgres: Stack) -> None:
    stack_on_postgres.start_worker()
    job = stack_on_postgres.submit(kind="pipeline", name="demo", config={"profile": "demo"})
    assert stack_on_postgres.wait_status(job["id"], "succeeded", "failed")["status"] == "succeeded"
