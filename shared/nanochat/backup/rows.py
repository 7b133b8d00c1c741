"""The tables as JSON lines, read in one transaction and written in one: all rows of a moment, or none.

Columns are taken as the database has them, so a backup of an older schema goes into that schema and is upgraded there.
Who is alive now (workers, replicas) is not kept: they say so themselves a second after their start.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, Connection, MetaData, Table, func, select

from nanochat.errors import Conflict
from nanochat.jobs.database import Database

ROWS_PER_FILE = 2000
_NOT_KEPT = frozenset({"workers", "replicas", "alembic_version"})


def dump(database: Database) -> Iterator[tuple[str, bytes]]:
    """`table/000000.jsonl` and its lines, tables that others refer to first. Raises Unavailable."""
    with database.snapshot() as connection:
        for table in _tables(connection):
            rows = connection.execution_options(yield_per=ROWS_PER_FILE).execute(select(table).order_by(*_order(table)))
            for number, part in enumerate(rows.mappings().partitions()):
                lines = [json.dumps(dict(row)) + "\n" for row in part]
                yield f"{table.name}/{number:06d}.jsonl", "".join(lines).encode()


def require_empty(database: Database) -> None:
    """Raises Conflict where a table holds a row. No tables at all are empty too."""
    with database.snapshot() as connection:
        for table in _tables(connection):
            count = connection.execute(select(func.count()).select_from(table)).scalar_one()
            if count:
                raise Conflict(
                    f"the database has {count} row{'s'[: count > 1]} in {table.name} already, and a restore overwrites "
                    "nothing. Give an empty database with NANOCHAT_DATABASE_URL, or another NANOCHAT_HOME."
                )


def load(database: Database, folder: Path) -> dict[str, int]:
    """Insert what dump() gave, from files below `folder`; the number of rows by table. Raises Unavailable."""
    counts: dict[str, int] = {}
    with database.change() as connection:
        for table in _tables(connection):
            for path in sorted((folder / table.name).glob("*.jsonl")):
                rows = [json.loads(line) for line in path.read_bytes().splitlines()]
                connection.execute(table.insert(), rows)
                counts[table.name] = counts.get(table.name, 0) + len(rows)
    return counts


def _tables(connection: Connection) -> list[Table]:
    """As the database has them, those that others refer to first."""
    metadata = MetaData()
    metadata.reflect(connection)
    tables = [table for table in metadata.sorted_tables if table.name not in _NOT_KEPT]
    for table in tables:
        for column in table.columns:
            if isinstance(column.type, JSON):  # else no value would come back as JSON's null
                column.type = JSON(none_as_null=True)
    return tables


def _order(table: Table) -> Sequence[Any]:
    """Rows that others of the same table refer to come first: a pipeline before its stages, these in their order."""
    if table.name == "jobs":
        return [table.c.parent_id.is_not(None), table.c.position, table.c.created_at, table.c.id]
    return list(table.primary_key.columns)
