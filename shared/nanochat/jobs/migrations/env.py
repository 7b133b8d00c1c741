"""Run by Alembic: applies versions/ on the connection that Database.upgrade() holds, inside its transaction."""

from alembic import context

from nanochat.jobs.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    # SQLite can roll back its DDL too, now that the driver starts no transactions of its own.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
