"""Processes and machines: what is up, what it uses, what is left."""

from boards.dashboard import Dashboard, Row
from boards.panels import Graph, Number, Query
from boards.queries import BY_INSTANCE, SERVICES, rate

BY_INFERENCE_WORKER = "worker {{worker}} of inference {{instance}}"
BY_GPU = f"{BY_INSTANCE} {{{{gpu}}}}"

FLEET = Dashboard(
    "fleet",
    "nanochat: Fleet",
    "The processes and machines below: what is up, what it uses, what is left.",
    [
        Row(
            "Now",
            [
                Number(
                    "Replicas up",
                    "short",
                    [Query(f"sum by (job) (up{{{SERVICES}}})", "{{job}}")],
                    red=1,
                    low_is_bad=True,
                ),
                Number("Alerts", "short", [Query('count(ALERTS{alertstate="firing"}) or vector(0)')], orange=1, red=3),
                Number(
                    "Disk left",
                    "percentunit",
                    [Query("min(instance:nanochat_home_free:ratio)")],
                    "Of the one that NANOCHAT_HOME is on.",
                    orange=0.2,
                    red=0.1,
                    low_is_bad=True,
                ),
                Number("Version", "short", [Query("count by (version) (nanochat_build_info)", "{{version}}")]),
            ],
            columns=4,
        ),
        Row(
            "Services",
            [
                Graph("Up", "short", [Query(f"up{{{SERVICES}}}", BY_INSTANCE)]),
                Graph(
                    "Starts within half an hour",
                    "short",
                    [Query("instance:process_starts:changes30m", BY_INSTANCE)],
                    "Beyond the first.",
                ),
                Graph("Time to scrape", "s", [Query(f"scrape_duration_seconds{{{SERVICES}}}", BY_INSTANCE)]),
                Graph(
                    "CPU",
                    "short",
                    [
                        Query(rate("process_cpu_seconds_total", "job, instance", SERVICES), BY_INSTANCE),
                        Query(rate("nanochat_worker_cpu_seconds_total", "instance, worker"), BY_INFERENCE_WORKER),
                        Query(rate("nanochat_runs_cpu_seconds_total", "instance"), "runs of worker {{instance}}"),
                    ],
                    "Cores in use.",
                    stacked=True,
                ),
                Graph(
                    "Memory",
                    "bytes",
                    [
                        Query(f"process_resident_memory_bytes{{{SERVICES}}}", BY_INSTANCE),
                        Query("nanochat_worker_resident_memory_bytes", BY_INFERENCE_WORKER),
                        Query("nanochat_runs_resident_memory_bytes", "runs of worker {{instance}}"),
                    ],
                    "Resident. What ranks share is counted for each.",
                    stacked=True,
                ),
                Graph(
                    "Open files, of those allowed",
                    "percentunit",
                    [Query("instance:process_open_fds:ratio", BY_INSTANCE)],
                    max=1,
                ),
            ],
        ),
        Row(
            "Disk and workers",
            [
                Graph("Disk left", "bytes", [Query("nanochat_home_free_bytes", BY_INSTANCE)]),
                Graph(
                    "Workers' slots",
                    "short",
                    [
                        Query("sum(nanochat_worker_jobs_running)", "taken"),
                        Query("sum(nanochat_worker_job_slots)", "in all"),
                    ],
                ),
                Graph(
                    "Heartbeats",
                    "s",
                    [Query("nanochat_worker_heartbeat_age_seconds", BY_INSTANCE)],
                    "The trainer tells of the worker that was heard of last, each worker of itself.",
                ),
            ],
        ),
        Row(
            "GPU",
            [
                Graph(
                    "Busy",
                    "percentunit",
                    [Query("nanochat_gpu_utilization_ratio", BY_GPU)],
                    max=1,
                ),
                Graph("Memory taken", "bytes", [Query("nanochat_gpu_memory_used_bytes", BY_GPU)]),
                Graph(
                    "Memory taken, of all",
                    "percentunit",
                    [
                        Query(
                            "nanochat_gpu_memory_used_bytes / (nanochat_gpu_memory_total_bytes > 0)",
                            BY_GPU,
                        )
                    ],
                    max=1,
                ),
                Graph("Temperature", "celsius", [Query("nanochat_gpu_temperature_celsius", BY_GPU)]),
                Graph("Power", "watt", [Query("nanochat_gpu_power_watts", BY_GPU)], stacked=True),
            ],
        ),
    ],
)
