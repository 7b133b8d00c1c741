"""Runs as they learn, and the jobs around them."""

from boards.dashboard import Choice, Dashboard, Row
from boards.panels import Graph, Heatmap, Number, Query
from boards.queries import buckets, increase, mean, quantiles, rate

RUN = 'job_name=~"$job_name"'
BY_RUN = "{{job_name}} {{kind}}"

TRAINING = Dashboard(
    "training",
    "nanochat: Training",
    "Runs as they learn, and the jobs around them. A run's series are there while it runs.",
    [
        Row(
            "Now",
            [
                Number("Runs", "short", [Query("sum(nanochat_worker_jobs_running)")]),
                Number("Free workers", "short", [Query("stack:nanochat_worker_free_slots:sum")]),
                Number("Jobs waiting", "short", [Query("sum(nanochat_queue_jobs)")]),
                Number("First of them, for", "s", [Query("max(nanochat_queue_oldest_seconds)")], orange=300, red=3600),
                Number(
                    "Failed within an hour",
                    "short",
                    [Query('sum(kind_outcome:nanochat_job_attempts:increase1h{outcome=~"failed|worker_lost"})')],
                    orange=0.5,
                    red=2.5,
                ),
                Number(
                    "Last sign of a worker",
                    "s",
                    [Query('min(nanochat_worker_heartbeat_age_seconds{job="trainer"})')],
                    orange=10,
                    red=30,
                ),
            ],
            columns=6,
        ),
        Row(
            "Runs",
            [
                Graph("Loss", "short", [Query(f"nanochat_train_loss{{{RUN}}}", BY_RUN)], from_zero=False),
                Graph(
                    "Validation, bits per byte", "short", [Query(f"nanochat_val_bpb{{{RUN}}}", BY_RUN)], from_zero=False
                ),
                Graph("CORE", "short", [Query(f"nanochat_core_metric{{{RUN}}}", BY_RUN)], from_zero=False),
                Graph("Throughput", "suffix: tok/s", [Query(f"nanochat_train_tokens_per_second{{{RUN}}}", BY_RUN)]),
                Graph(
                    "Model FLOPs utilization",
                    "percentunit",
                    [Query(f"nanochat_train_mfu_ratio{{{RUN}}}", BY_RUN)],
                    "Of the device's dense bfloat16 peak; of a measured product of matrices on a CPU.",
                ),
                Graph("Progress", "percentunit", [Query(f"nanochat_job_progress_ratio{{{RUN}}}", BY_RUN)], max=1),
                Graph("Time left", "s", [Query(f"nanochat_job_eta_seconds{{{RUN}}}", BY_RUN)]),
                Graph(
                    "Silence",
                    "s",
                    [Query(f"nanochat_job_silence_seconds{{{RUN}}}", BY_RUN)],
                    "Since the run last said anything: half an hour is an alert.",
                ),
                Graph("Tokens, all runs", "suffix: tok/s", [Query(rate("nanochat_train_tokens_total"), "trained on")]),
            ],
        ),
        Row(
            "Checkpoints",
            [
                Graph(
                    "Written",
                    "short",
                    [Query(increase("nanochat_checkpoint_seconds_count", "instance"), "{{instance}}")],
                ),
                Graph("Mean time to write", "s", [Query(mean("nanochat_checkpoint_seconds"), "a checkpoint")]),
                Heatmap("Time to write", "s", buckets("nanochat_checkpoint_seconds")),
            ],
        ),
        Row(
            "Jobs",
            [
                Graph("By status", "short", [Query("sum by (status) (nanochat_jobs)", "{{status}}")]),
                Graph(
                    "Runs ended",
                    "short",
                    [Query(increase("nanochat_job_attempts_total", "kind, outcome") + " > 0", "{{kind}} {{outcome}}")],
                ),
                Graph(
                    "Mean length of a run",
                    "s",
                    [
                        Query(
                            f"{rate('nanochat_job_duration_seconds_sum', 'kind')} / "
                            f"({rate('nanochat_job_duration_seconds_count', 'kind')} > 0)",
                            "{{kind}}",
                        )
                    ],
                ),
                Graph("Waiting", "short", [Query("sum(nanochat_queue_jobs)", "jobs")]),
                Graph("Wait for a worker", "s", quantiles("nanochat_queue_wait_seconds")),
                Graph(
                    "Messages sent to workers",
                    "short",
                    [Query(increase("nanochat_job_messages_total", "reason"), "{{reason}}")],
                    "lost: sent again, since Redis had forgotten it.",
                ),
            ],
        ),
    ],
    [Choice("job_name", "Job", "nanochat_job_progress_ratio")],
)
