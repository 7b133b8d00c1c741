import pytest

from nanochat.errors import Conflict, NotFound
from nanochat.jobs.leases import Leases, Report
from nanochat.jobs.store import JobStore, Waiting
from nanochat.protocol.jobs import Job, JobError, JobSpec
from nanochat.protocol.progress import Metric

from .conftest import Clock

TOKENIZER = JobSpec(kind="tokenizer", name="t")
PIPELINE = JobSpec(kind="pipeline", name="p", config={"profile": "demo"})


def pretrain(name: str, **config: object) -> JobSpec:
    return JobSpec(kind="pretrain", name=name, config={"dataset": "d", "tokenizer": "t", **config})


def run(jobs: JobStore, leases: Leases, job: Job, *, fails: bool = False) -> None:
    lease = leases.claim(job.id, "w")
    assert lease is not None
    error = JobError(code="data_error", message="a broken shard") if fails else None
    leases.finish(lease, "failed" if fails else "succeeded", error=error, output=job.kind)


def test_a_submitted_job_is_queued_and_shown_as_given(jobs: JobStore, clock: Clock) -> None:
    job = jobs.submit(JobSpec(kind="tokenizer", name="t", config={"vocab_size": 512}, priority=3))
    assert job == jobs.get(job.id)
    assert (job.status, job.attempt, job.created_at) == ("queued", 0, clock.now)
    assert job.config == {"vocab_size": 512}
    assert [event.data["status"] for event in jobs.events(job.id)] == ["queued"]


def test_planning_stores_nothing(jobs: JobStore) -> None:
    assert len(jobs.plan(PIPELINE)) == 6
    assert jobs.find() == []


def test_the_same_key_and_body_give_the_same_job(jobs: JobStore) -> None:
    first = jobs.submit(TOKENIZER, idempotency_key="k")
    assert jobs.submit(TOKENIZER, idempotency_key="k").id == first.id
    assert jobs.submitted(TOKENIZER, "k") == first
    assert jobs.submit(JobSpec(kind="tokenizer"), idempotency_key="other").id != first.id


def test_the_same_key_with_another_body_is_a_conflict(jobs: JobStore) -> None:
    jobs.submit(TOKENIZER, idempotency_key="k")
    with pytest.raises(Conflict, match="another body"):
        jobs.submit(PIPELINE, idempotency_key="k")
    assert len(jobs.find()) == 1


@pytest.mark.parametrize(
    ("first", "second", "param"),
    [
        (TOKENIZER, TOKENIZER, "name"),
        (pretrain("a", run="r"), pretrain("b", run="r"), "config.run"),
        (pretrain("r"), pretrain("b", run="r", resume=True), "config.run"),
        (TOKENIZER, JobSpec(kind="pipeline", name="t", config={"profile": "demo"}), "name"),
        (PIPELINE, pretrain("p"), "config.run"),
    ],
)
def test_a_job_that_would_write_where_a_waiting_or_running_one_does_is_refused(
    jobs: JobStore, leases: Leases, first: JobSpec, second: JobSpec, param: str
) -> None:
    earlier = jobs.submit(first)
    num_jobs = len(jobs.find())
    writer = next(job for job in [earlier, *jobs.stages(earlier.id)] if job.kind in ("tokenizer", second.kind))
    with pytest.raises(Conflict) as caught:
        jobs.submit(second)
    assert caught.value.param == param
    if first is not PIPELINE:
        assert f"job {writer.id} is queued" in caught.value.message
        assert leases.claim(writer.id, "w") is not None
        with pytest.raises(Conflict, match=f"job {writer.id} is running"):
            jobs.submit(second)
    assert len(jobs.find()) == num_jobs
    jobs.cancel(earlier.id)


def test_another_stage_of_the_same_run_and_a_job_that_has_ended_are_in_nobodys_way(jobs: JobStore) -> None:
    jobs.cancel(jobs.submit(pretrain("r")).id)
    jobs.submit(pretrain("r"))
    jobs.submit(JobSpec(kind="sft", name="r", config={"checkpoint": "c", "mixture": [{"task": "spelling"}]}))


def test_a_job_is_not_retried_while_another_one_writes_in_its_place(jobs: JobStore) -> None:
    first = jobs.submit(TOKENIZER)
    jobs.cancel(first.id)
    second = jobs.submit(TOKENIZER)
    with pytest.raises(Conflict, match=f"job {second.id} is queued and writes tokenizer 't'"):
        jobs.retry(first.id)
    assert jobs.get(first.id).status == "cancelled"


def test_jobs_are_listed_newest_first_page_by_page(jobs: JobStore, clock: Clock) -> None:
    ids = []
    for index in range(5):
        clock.advance(index % 2)  # two of them share their time
        ids.append(jobs.submit(JobSpec(kind="tokenizer")).id)
    expected = sorted(ids, reverse=True)
    assert [job.id for job in jobs.find(limit=2)] == expected[:2]
    assert [job.id for job in jobs.find(after=expected[1])] == expected[2:]
    assert jobs.find(status="running") == []
    assert jobs.find(kind="pretrain") == []


def test_an_unknown_job_is_not_found(jobs: JobStore) -> None:
    for ask in (jobs.get, jobs.series, jobs.cancel, jobs.retry):
        with pytest.raises(NotFound):
            ask("job_none")


def test_only_the_stage_whose_turn_it_is_can_be_dispatched(jobs: JobStore, leases: Leases) -> None:
    stages = jobs.stages(jobs.submit(PIPELINE).id)
    assert [job.id for job in jobs.dispatchable()] == [stages[0].id]
    assert leases.claim(stages[1].id, "w") is None
    run(jobs, leases, stages[0])
    assert [job.id for job in jobs.dispatchable()] == [stages[1].id]


def test_the_most_urgent_job_is_dispatched_first(jobs: JobStore, clock: Clock) -> None:
    low = jobs.submit(JobSpec(kind="tokenizer"))
    clock.advance(1)
    high = jobs.submit(JobSpec(kind="tokenizer", priority=9))
    assert [job.id for job in jobs.dispatchable()] == [high.id, low.id]


def test_a_sent_job_counts_as_undelivered_only_after_a_while(jobs: JobStore, clock: Clock) -> None:
    job = jobs.submit(TOKENIZER)
    jobs.mark_dispatched(job.id)
    assert jobs.dispatchable() == []
    assert jobs.undelivered(clock.now - 10) == []
    clock.advance(20)
    assert [found.id for found in jobs.undelivered(clock.now - 10)] == [job.id]


def test_a_pipeline_follows_its_stages(jobs: JobStore, leases: Leases, clock: Clock) -> None:
    parent = jobs.submit(PIPELINE)
    for position, stage in enumerate(jobs.stages(parent.id)):
        assert jobs.get(parent.id).status == ("running" if position else "queued")
        clock.advance(1)
        run(jobs, leases, stage)
        assert jobs.get(parent.id).progress.step == position + 1
    done = jobs.get(parent.id)
    assert (done.status, done.output, done.progress.ratio) == ("succeeded", "report", 1.0)
    assert done.started_at == clock.now - 4
    statuses = [event.data["status"] for event in jobs.events(parent.id) if event.type == "status"]
    assert statuses == ["queued", "running", "succeeded"]


def test_a_pipelines_events_tell_its_stages_metrics_and_its_own_series_do_not(jobs: JobStore, leases: Leases) -> None:
    parent = jobs.submit(PIPELINE)
    lease = leases.claim(parent.stages[0], "w")
    assert lease is not None
    metric = Metric(time=5.0, step=3, values={"bytes_per_token": 4.0})
    leases.record(lease, Report(offset=1, metrics=[metric]))
    told = [event for event in jobs.events(parent.id) if event.type == "metric"]
    assert [(event.time, event.data) for event in told] == [
        (5.0, {"stage": "tokenizer", "step": 3, "values": {"bytes_per_token": 4.0}})
    ]
    assert jobs.series(parent.id) == {}
    assert list(jobs.series(parent.stages[0])) == ["bytes_per_token"]


def test_stages_of_one_kind_are_told_apart_by_their_names(jobs: JobStore, leases: Leases) -> None:
    config = {"profile": "miniseries", "stages": ["tokenizer", "d10", "d11"]}
    parent = jobs.submit(JobSpec(kind="pipeline", name="s", num_processes=1, config=config))
    for stage in jobs.stages(parent.id)[:2]:
        run(jobs, leases, stage)
    lease = leases.claim(parent.stages[2], "w")
    assert lease is not None
    leases.record(lease, Report(offset=1, metrics=[Metric(time=5.0, step=3, values={"val_bpb": 1.0})]))
    told = [event.data for event in jobs.events(parent.id) if event.type == "metric"]
    assert told[-1]["stage"] == "d11"


def test_a_failed_stage_ends_those_behind_it_and_the_pipeline(jobs: JobStore, leases: Leases) -> None:
    parent = jobs.submit(PIPELINE)
    stages = jobs.stages(parent.id)
    run(jobs, leases, stages[0])
    run(jobs, leases, stages[1], fails=True)
    assert [stage.status for stage in jobs.stages(parent.id)] == ["succeeded", *["failed"] * 4]
    error = jobs.get(parent.id).error
    assert error is not None
    assert error.code == "data_error"
    assert f"stage pretrain ({stages[1].id}) failed: a broken shard" in error.message
    assert jobs.dispatchable() == []


@pytest.mark.parametrize("retried", ["pipeline", "failed stage", "stage behind it"])
def test_retry_goes_on_with_the_stage_that_failed(jobs: JobStore, leases: Leases, retried: str) -> None:
    parent = jobs.submit(PIPELINE)
    stages = jobs.stages(parent.id)
    run(jobs, leases, stages[0])
    run(jobs, leases, stages[1], fails=True)
    job_id = {"pipeline": parent.id, "failed stage": stages[1].id, "stage behind it": stages[2].id}[retried]
    jobs.retry(job_id)
    assert [stage.status for stage in jobs.stages(parent.id)] == ["succeeded", *["queued"] * 4]
    assert jobs.get(parent.id).status == "running"
    for stage in stages[1:]:
        run(jobs, leases, stage)
    assert jobs.get(parent.id).status == "succeeded"
    assert jobs.get(stages[1].id).attempt == 2
    assert jobs.get(stages[1].id).error is None


def test_cancelling_a_pipeline_cancels_what_waits_and_asks_what_runs(jobs: JobStore, leases: Leases) -> None:
    parent = jobs.submit(PIPELINE)
    lease = leases.claim(jobs.stages(parent.id)[0].id, "w")
    assert lease is not None
    assert leases.renew(lease) is False
    assert jobs.cancel(parent.id).status == "running"
    assert [stage.status for stage in jobs.stages(parent.id)] == ["running", *["cancelled"] * 4]
    assert leases.renew(lease) is True
    leases.finish(lease, "cancelled")
    assert jobs.get(parent.id).status == "cancelled"


def test_cancelling_a_queued_job_ends_it_and_it_can_be_retried(jobs: JobStore, leases: Leases) -> None:
    job = jobs.submit(TOKENIZER)
    assert jobs.cancel(job.id).status == "cancelled"
    assert jobs.cancel(job.id).status == "cancelled"
    assert leases.claim(job.id, "w") is None
    assert jobs.retry(job.id).status == "queued"
    run(jobs, leases, job)
    with pytest.raises(Conflict):
        jobs.cancel(job.id)


def test_jobs_are_counted_by_status(jobs: JobStore) -> None:
    jobs.cancel(jobs.submit(TOKENIZER).id)
    jobs.submit(TOKENIZER)
    assert jobs.count_by_status() == {"queued": 1, "cancelled": 1}


def test_what_waits_are_the_jobs_whose_turn_it_is(jobs: JobStore, leases: Leases, clock: Clock) -> None:
    assert jobs.waiting() == Waiting(num_jobs=0, oldest_s=0.0)
    pipeline = jobs.submit(PIPELINE)
    clock.advance(30)
    jobs.submit(TOKENIZER)
    assert jobs.waiting() == Waiting(num_jobs=2, oldest_s=30.0)
    run(jobs, leases, jobs.get(pipeline.stages[0]))
    clock.advance(5)
    assert jobs.waiting() == Waiting(num_jobs=2, oldest_s=5.0)
