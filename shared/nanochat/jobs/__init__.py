"""Jobs and served models as rows of a database, torch-free.

states.py      which status may follow which (pure)
tables.py      the rows;  migrations/  how a database gets them
database.py    an engine for SQLite or PostgreSQL, its transactions, its schema
store.py       what the API asks: submit, show, list, cancel, retry, dispatch
outputs.py     two jobs never write to the same place
leases.py      what a worker may do with a job it holds: claim, renew, record, finish
pipelines.py   stages of a pipeline, and what they make of their parent
profiles.py    pipelines as data (profiles/*.json)
models.py      which checkpoint is served under which name, and who serves it
"""
