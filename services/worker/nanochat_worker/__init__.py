"""Claims jobs, starts torchrun, reports. Never imports torch.

celery_app.py   the consumer: one message, one job id
runner.py       from a job id to the end of its run
launcher.py     spec, log, environment; starts the supervisor
supervisor.py   a small process that ends the whole tree of a run, also when this worker is killed
leftovers.py    ends what outlived a killed supervisor
tail.py         reads progress.jsonl
outcome.py      what a run's end means for its job
metrics.py, health.py   port 8003
"""
