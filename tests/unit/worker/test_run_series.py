import pytest
from prometheus_client import CollectorRegistry

from nanochat.protocol.jobs import Job
from nanochat.protocol.progress import CheckpointWritten, Metric, Progress, Setup
from nanochat_worker.run_series import GAUGES, INFO, LINGER_S, RunSeries

JOB = Job(id="job_1", kind="pretrain", name="demo", status="running", created_at=0.0)
LABELS = {"job_name": "demo", "kind": "pretrain"}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Scraped:
    """Series in a registry, with a clock that the test moves."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.series = RunSeries(self.clock)
        self.registry = CollectorRegistry()
        self.registry.register(self.series)

    def value(self, name: str) -> float | None:
        return self.registry.get_sample_value(f"nanochat_{name}", LABELS)

    def num_samples(self) -> int:
        return sum(len(family.samples) for family in self.registry.collect())


@pytest.fixture
def scraped() -> Scraped:
    return Scraped()


def loss(value: float) -> Metric:
    return Metric(time=0.0, step=1, values={"train_loss": value, "num_skipped_steps": 0.0})


def test_the_newest_value_is_shown(scraped: Scraped) -> None:
    run = scraped.series.begin(JOB)
    run.observe(loss(3.0))
    run.observe(loss(2.5))
    run.observe(Progress(time=0.0, step=1, num_steps=4, tokens_per_second=9.0, eta_s=60.0))
    assert scraped.value("train_loss") == 2.5
    assert (scraped.value("job_progress_ratio"), scraped.value("job_eta_seconds")) == (0.25, 60.0)
    assert scraped.value("num_skipped_steps") is None


def test_a_job_without_tokens_has_no_speed(scraped: Scraped) -> None:
    scraped.series.begin(JOB).observe(Progress(time=0.0, step=1, num_steps=4))
    assert scraped.value("train_tokens_per_second") is None
    assert scraped.value("job_eta_seconds") is None


def test_last_words_can_be_scraped_after_the_end_and_then_all_series_go(scraped: Scraped) -> None:
    run = scraped.series.begin(JOB)
    run.observe(Metric(time=0.0, step=9, values={"val_bpb": 1.25}))
    run.end()
    scraped.clock.now += LINGER_S
    assert scraped.value("val_bpb") == 1.25
    scraped.clock.now += 1
    assert scraped.num_samples() == 0


def test_silence_grows_until_the_run_says_something_and_is_over_with_it(scraped: Scraped) -> None:
    run = scraped.series.begin(JOB)
    scraped.clock.now += 40
    assert scraped.value("job_silence_seconds") == 40
    run.observe(CheckpointWritten(time=0.0, step=1, checkpoint="r/pretrain/step_000001"))
    assert scraped.value("job_silence_seconds") == 0
    run.end()
    assert scraped.value("job_silence_seconds") is None


def test_the_next_attempt_of_a_job_takes_the_place_of_the_last(scraped: Scraped) -> None:
    first = scraped.series.begin(JOB)
    first.observe(loss(3.0))
    first.end()
    scraped.series.begin(JOB).observe(loss(2.0))
    scraped.clock.now += LINGER_S + 1
    assert scraped.value("train_loss") == 2.0


def test_stages_of_a_pipeline_share_a_name_and_not_a_series(scraped: Scraped) -> None:
    scraped.series.begin(JOB).observe(loss(3.0))
    scraped.series.begin(JOB.model_copy(update={"kind": "sft"})).observe(loss(1.0))
    assert scraped.value("train_loss") == 3.0


def test_what_a_run_computes_with_is_one_series_of_labels(scraped: Scraped) -> None:
    run = scraped.series.begin(JOB)
    chosen = {"device": "cuda", "precision": "fp8", "attention": "flash3", "window_attention": "flash3"}
    run.observe(Setup(time=0.0, **chosen))
    run.observe(loss(3.0))
    assert scraped.registry.get_sample_value("nanochat_train_setup_info", {**LABELS, **chosen}) == 1
    run.end()
    scraped.clock.now += LINGER_S + 1
    assert scraped.num_samples() == 0


def test_every_series_is_announced_without_a_run(scraped: Scraped) -> None:
    assert [family.name for family in scraped.registry.collect()] == [*GAUGES, INFO]
