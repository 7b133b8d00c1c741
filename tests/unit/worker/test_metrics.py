from prometheus_client import generate_latest

from nanochat.protocol.jobs import Job
from nanochat.protocol.progress import Metric, Progress
from nanochat_worker.metrics import Metrics

JOB = Job(id="job_1", kind="pretrain", name="demo", status="running", created_at=0.0)


def progress(tokens: int) -> Progress:
    return Progress(time=0.0, step=1, num_steps=2, tokens=tokens, tokens_per_second=9.0)


def test_a_job_shows_what_it_measures() -> None:
    metrics = Metrics()
    of_job = metrics.of_job(JOB)
    of_job.observe(progress(10))
    of_job.observe(Metric(time=0.0, step=1, values={"train_loss": 2.5, "spelling_accuracy": 0.1}))
    text = generate_latest(metrics.registry).decode()
    assert 'nanochat_train_loss{job_name="demo",kind="pretrain"} 2.5' in text
    assert 'nanochat_train_tokens_per_second{job_name="demo",kind="pretrain"} 9.0' in text
    assert "spelling" not in text


def test_tokens_of_an_earlier_attempt_are_not_counted_again() -> None:
    metrics = Metrics()
    of_job = metrics.of_job(JOB)
    for tokens in (1000, 1010, 1030):
        of_job.observe(progress(tokens))
    assert metrics.registry.get_sample_value("nanochat_train_tokens_total") == 30


def test_checkpoints_are_timed() -> None:
    metrics = Metrics()
    metrics.of_job(JOB).observe(Metric(time=0.0, step=1, values={"checkpoint_seconds": 0.7}))
    assert metrics.registry.get_sample_value("nanochat_checkpoint_seconds_sum") == 0.7


def test_the_heartbeats_age_grows_until_the_next_one() -> None:
    metrics = Metrics()
    metrics.beat()
    age = metrics.registry.get_sample_value("nanochat_worker_heartbeat_age_seconds")
    assert age is not None
    assert 0 <= age < 5


def test_a_first_failure_is_an_increase() -> None:
    value = Metrics().registry.get_sample_value("nanochat_job_attempts_total", {"kind": "sft", "outcome": "failed"})
    assert value == 0


def test_the_slots_are_those_of_the_settings() -> None:
    assert Metrics(num_slots=3).registry.get_sample_value("nanochat_worker_job_slots") == 3
