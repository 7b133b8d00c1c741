"""REST over jobs, checkpoints and models. Checks a job, stores it, sends its message; runs nothing itself.

app.py          create_app(settings)
routes_*.py     one file a resource
validation.py   what a job's config must satisfy before it is stored
reconciler.py   sends what is dispatchable, ends leases that nobody renews
broker.py       the one place that speaks Celery
"""
