import pytest

from nanochat.errors import NotFound
from nanochat.jobs.leases import LEASE_S, Lease, LeaseLost, Leases, Report
from nanochat.jobs.store import JobStore
from nanochat.protocol.jobs import JobSpec
from nanochat.protocol.progress import Metric, Progress

from .conftest import Clock


def claimed(jobs: JobStore, leases: Leases, **spec: object) -> Lease:
    job = jobs.submit(JobSpec.model_validate({"kind": "tokenizer", **spec}))
    lease = leases.claim(job.id, "worker-1")
    assert lease is not None
    return lease


def test_a_job_is_claimed_once(jobs: JobStore, leases: Leases) -> None:
    lease = claimed(jobs, leases)
    assert (lease.job.status, lease.job.attempt) == ("running", 1)
    assert leases.claim(lease.job.id, "worker-2") is None


def test_claiming_a_job_that_never_was_is_not_found(leases: Leases) -> None:
    with pytest.raises(NotFound):
        leases.claim("job_none", "w")


def test_a_pipeline_itself_is_never_claimed(jobs: JobStore, leases: Leases) -> None:
    job = jobs.submit(JobSpec(kind="pipeline", config={"profile": "demo"}))
    assert leases.claim(job.id, "w") is None


def test_queue_wait_is_measured_from_the_last_queueing(jobs: JobStore, leases: Leases, clock: Clock) -> None:
    job = jobs.submit(JobSpec(kind="tokenizer"))
    clock.advance(7)
    lease = leases.claim(job.id, "w")
    assert lease is not None
    assert lease.queue_wait_s == 7


def test_a_stage_waits_from_the_end_of_the_one_before_it(jobs: JobStore, leases: Leases, clock: Clock) -> None:
    first, second, *_ = jobs.submit(JobSpec(kind="pipeline", config={"profile": "demo"})).stages
    lease = leases.claim(first, "w")
    assert lease is not None
    clock.advance(100)
    leases.finish(lease, "succeeded", output="t")
    clock.advance(7)
    lease = leases.claim(second, "w")
    assert lease is not None
    assert lease.queue_wait_s == 7


def test_a_renewed_lease_outlives_an_unrenewed_one(jobs: JobStore, leases: Leases, clock: Clock) -> None:
    kept, lost = claimed(jobs, leases), claimed(jobs, leases)
    clock.advance(LEASE_S - 1)
    leases.renew(kept)
    clock.advance(2)
    assert [job.id for job in leases.reap()] == [lost.job.id]
    assert leases.reap() == []
    assert jobs.get(kept.job.id).status == "running"
    assert jobs.get(lost.job.id).status == "queued"


def test_whoever_lost_the_lease_can_write_nothing_more(jobs: JobStore, leases: Leases, clock: Clock) -> None:
    old = claimed(jobs, leases)
    clock.advance(LEASE_S + 1)
    leases.reap()
    new = leases.claim(old.job.id, "worker-2")
    assert new is not None
    for write in (
        lambda: leases.renew(old),
        lambda: leases.record(old, Report(offset=1)),
        lambda: leases.finish(old, "succeeded"),
        lambda: leases.release(old),
    ):
        with pytest.raises(LeaseLost):
            write()
    leases.finish(new, "succeeded")
    assert jobs.get(old.job.id).attempt == 2


def test_a_job_fails_as_worker_lost_when_its_attempts_are_used_up(jobs: JobStore, leases: Leases, clock: Clock) -> None:
    job = claimed(jobs, leases, max_attempts=2).job
    clock.advance(LEASE_S + 1)
    leases.reap()
    leases.claim(job.id, "worker-2")
    clock.advance(LEASE_S + 1)
    leases.reap()
    failed = jobs.get(job.id)
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error.code == "worker_lost"
    assert "worker-2" in failed.error.message
    jobs.retry(job.id)
    leases.claim(job.id, "worker-3")
    clock.advance(LEASE_S + 1)
    leases.reap()
    assert jobs.get(job.id).status == "queued"  # a retry begins counting anew


def test_a_cancelled_job_whose_worker_is_lost_is_cancelled(jobs: JobStore, leases: Leases, clock: Clock) -> None:
    job = claimed(jobs, leases).job
    jobs.cancel(job.id)
    clock.advance(LEASE_S + 1)
    leases.reap()
    assert jobs.get(job.id).status == "cancelled"


def test_a_released_job_is_queued_without_using_up_an_attempt(jobs: JobStore, leases: Leases) -> None:
    job = jobs.submit(JobSpec(kind="tokenizer", max_attempts=1))
    for attempt in range(1, 4):
        lease = leases.claim(job.id, "w")
        assert lease is not None
        assert lease.job.attempt == attempt
        leases.release(lease)
        assert jobs.get(job.id).status == "queued"


def test_a_run_stopped_from_outside_again_and_again_fails(jobs: JobStore, leases: Leases) -> None:
    lease: Lease | None = claimed(jobs, leases, max_attempts=2)
    assert lease is not None
    leases.release(lease, is_failure=True)
    lease = leases.claim(lease.job.id, "w")
    assert lease is not None
    leases.release(lease, is_failure=True)
    assert jobs.get(lease.job.id).status == "failed"


def test_records_become_progress_metrics_and_events(jobs: JobStore, leases: Leases) -> None:
    lease = claimed(jobs, leases)
    progress = Progress(time=1.0, step=5, num_steps=10, tokens=50, tokens_per_second=7.0, eta_s=2.0)
    metrics = [Metric(time=1.0, step=step, values={"loss": float(step)}) for step in (4, 5)]
    leases.record(lease, Report(offset=99, progress=progress, metrics=metrics, checkpoint="r/s/step_000005"))
    leases.record(lease, Report(offset=120))
    job = jobs.get(lease.job.id)
    assert (job.progress.step, job.progress.ratio, job.metrics) == (5, 0.5, {"loss": 5.0})
    assert job.checkpoint == "r/s/step_000005"
    assert [(point.step, point.value) for point in jobs.series(job.id)["loss"]] == [(4, 4.0), (5, 5.0)]
    types = [event.type for event in jobs.events(job.id)]
    assert types == ["status", "status", "progress", "metric", "metric"]
    assert [event.number for event in jobs.events(job.id)] == [1, 2, 3, 4, 5]
    assert [event.number for event in jobs.events(job.id, after=3)] == [4, 5]


def test_the_next_attempt_reads_on_where_the_last_one_was_recorded(
    jobs: JobStore, leases: Leases, clock: Clock
) -> None:
    lease = claimed(jobs, leases)
    leases.record(lease, Report(offset=120))
    clock.advance(LEASE_S + 1)
    leases.reap()
    again = leases.claim(lease.job.id, "w")
    assert again is not None
    assert again.progress_offset == 120


def test_the_deadline_counts_from_the_first_start_and_the_pipelines_counts_too(
    jobs: JobStore, leases: Leases, clock: Clock
) -> None:
    assert claimed(jobs, leases).deadline_at is None
    start = clock.now
    lease = claimed(jobs, leases, deadline_s=50)
    clock.advance(10)
    leases.release(lease)
    again = leases.claim(lease.job.id, "w")
    assert again is not None
    assert again.deadline_at == start + 50

    parent = jobs.submit(JobSpec(kind="pipeline", config={"profile": "demo"}, deadline_s=100))
    first, second, *_ = jobs.stages(parent.id)
    start = clock.now
    lease = leases.claim(first.id, "w") or lease
    leases.finish(lease, "succeeded")
    clock.advance(30)
    behind = leases.claim(second.id, "w")
    assert behind is not None
    assert behind.deadline_at == start + 100


def test_workers_are_known_by_their_beats(leases: Leases, clock: Clock) -> None:
    leases.beat("a")
    clock.advance(5)
    leases.beat("b")
    assert leases.worker_ages() == {"a": 5.0, "b": 0.0}
    leases.retire("a")
    leases.retire("never seen")
    assert leases.worker_ages() == {"b": 0.0}
