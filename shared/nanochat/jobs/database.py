"""An engine for SQLite or PostgreSQL: its transactions and its schema. What is in the tables is the stores' business.

The trainer upgrades the schema at its start, one process at a time; every other service waits for it.
"""

import logging
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    InternalError,
    NoSuchModuleError,
    OperationalError,
)
from sqlalchemy.orm import Session

from nanochat.errors import InvalidConfig, InvalidRequest, Unavailable
from nanochat.jobs.tables import SCHEMA_REVISION, Base

log = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).parent / "migrations"
# Any fixed numbers: they name what is done by one at a time among PostgreSQL's advisory locks.
UPGRADE_LOCK = 7_310_001
SUBMIT_LOCK = 7_310_002
# Services that start together wait for each other this long without a word.
_QUIET_S = 3.0
# PostgreSQL's codes for a missing table, column or schema, and for one that this user may not touch.
_OTHER_SCHEMA = frozenset({"42P01", "42703", "3F000", "42501"})


class Database:
    """Transactions on one database. Safe to share between threads; open one in each process."""

    def __init__(self, url: str, *, busy_timeout_s: float = 30.0) -> None:
        """`busy_timeout_s` is how long a writer waits for another one on SQLite. Connects on first use."""
        self.engine = _create_engine(url, busy_timeout_s)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        self._writer = self.engine.execution_options(begin_immediate=True)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A snapshot to read from. Raises Unavailable when the database does not answer."""
        with _mapped_errors(), Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction: everything in it happens, or nothing.

        On SQLite it takes the write lock at once: a reader that turns writer half-way would fail without waiting.
        """
        with _mapped_errors(), Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A connection that sees one moment of all tables, however long it reads. Raises Unavailable."""
        with _mapped_errors(), self.engine.connect() as connection:
            if not self.is_sqlite:
                connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    @contextmanager
    def change(self) -> Iterator[Connection]:
        """write() without the tables of this version: for rows of whatever columns the database has."""
        with _mapped_errors(), self._writer.connect() as connection, connection.begin():
            yield connection

    def upsert(self, session: Session, row: type[Base], values: dict[str, Any], update: Collection[str] = ()) -> None:
        """Insert a row; where its primary key is there already, set the columns of `update` and leave the others.

        One statement: a look followed by an insert would fail when another process inserts in between.
        """
        insert = sqlite.insert if self.is_sqlite else postgresql.insert
        key = [column.name for column in inspect(row).primary_key]
        statement = insert(row).values(**values)
        if update:
            new = {column: statement.excluded[column] for column in update}
            session.execute(statement.on_conflict_do_update(index_elements=key, set_=new))
        else:
            session.execute(statement.on_conflict_do_nothing(index_elements=key))

    def lock_submissions(self, session: Session) -> None:
        """Keep others from adding or requeueing jobs until this transaction ends: for a look that an insert follows."""
        if not self.is_sqlite:  # where only one transaction writes at a time anyway
            session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": SUBMIT_LOCK})

    def upgrade(self, revision: str = SCHEMA_REVISION) -> None:
        """Bring the schema up to `revision`, making the SQLite file's folder. Safe to call from several processes.

        Raises InvalidRequest on a revision that this version does not know.
        """
        from alembic import command  # slow to import, and needed by the trainer alone
        from alembic.config import Config
        from alembic.util import CommandError

        if self.is_sqlite and self.engine.url.database:
            Path(self.engine.url.database).parent.mkdir(parents=True, exist_ok=True)
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        with _mapped_errors(), self._writer.connect() as connection, connection.begin():
            if not self.is_sqlite:  # BEGIN IMMEDIATE already keeps others out
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": UPGRADE_LOCK})
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, revision)
            except CommandError as exc:
                raise InvalidRequest(
                    f"this version cannot make schema {revision!r} ({exc}); use the one that made it, or a newer one."
                ) from exc

    def revision(self) -> str | None:
        """The schema's revision, or None for an empty database. Raises Unavailable when there is no database yet."""
        database = self.engine.url.database
        if self.is_sqlite and database and not Path(database).exists():
            raise Unavailable(f"there is no database at {database} yet; start the trainer, which makes it.")
        with _mapped_errors(), self.engine.connect() as connection:
            return _revision(connection)

    def require_schema(self) -> None:
        """Raises Unavailable unless the schema is the one this version was written for."""
        found = self.revision()
        if found is None:
            raise Unavailable("the database has no tables yet; start the trainer, which makes them.")
        if found != SCHEMA_REVISION:
            raise Unavailable(
                f"the database has schema {found}, this version needs {SCHEMA_REVISION}; "
                "start the trainer of the same version, which upgrades it."
            )

    def wait_for_schema(self, timeout_s: float = 60.0) -> None:
        """Poll until the trainer has made the schema. Raises Unavailable, saying what is missing, after `timeout_s`."""
        _wait(self.require_schema, timeout_s)

    def wait_for_server(self, timeout_s: float = 60.0) -> None:
        """Poll until a PostgreSQL server takes us in; SQLite has none. Raises Unavailable, as it said, after that."""
        if not self.is_sqlite:
            _wait(self._connect, timeout_s)

    def _connect(self) -> None:
        with _mapped_errors(), self.engine.connect():
            pass

    def close(self) -> None:
        self.engine.dispose()


def _wait(check: Callable[[], None], timeout_s: float) -> None:
    """Until it raises Unavailable no more; what is awaited is logged once it has taken longer than a start does."""
    started = time.monotonic()
    is_logged = False
    while True:
        try:
            return check()
        except Unavailable as exc:
            waited_s = time.monotonic() - started
            if waited_s >= timeout_s:
                raise Unavailable(f"waited {timeout_s:g} s for the database: {exc.message}") from exc
            if waited_s >= _QUIET_S and not is_logged:
                log.warning("database_awaited", extra={"reason": exc.message, "timeout_s": timeout_s})
                is_logged = True
        time.sleep(0.2)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def _create_engine(url: str, busy_timeout_s: float) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.drivername in ("postgres", "postgresql"):  # the usual spellings; psycopg 3 is the driver we ship
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.get_backend_name() == "sqlite":
            return _sqlite_engine(parsed.render_as_string(hide_password=False), busy_timeout_s)
        return create_engine(parsed, pool_pre_ping=True, connect_args={"connect_timeout": 5})
    except (ArgumentError, NoSuchModuleError) as exc:
        raise InvalidConfig(
            f"NANOCHAT_DATABASE_URL cannot be used ({exc}); give sqlite:////absolute/path.db or "
            "postgresql://user:password@host/database."
        ) from exc


def _sqlite_engine(url: str, busy_timeout_s: float) -> Engine:
    engine = create_engine(url, connect_args={"timeout": busy_timeout_s, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _configure(dbapi_connection: Any, _record: Any) -> None:
        dbapi_connection.isolation_level = None  # the driver starts no transaction of its own; _begin does
        cursor = dbapi_connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {int(busy_timeout_s * 1000)}")
        _use_wal(cursor, busy_timeout_s)
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("begin_immediate", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine


def _use_wal(cursor: Any, busy_timeout_s: float) -> None:
    """Readers and a writer at once. SQLite's own waiting leaves out this one statement, in a file that is new."""
    deadline = time.monotonic() + busy_timeout_s
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.01)


@contextmanager
def _mapped_errors() -> Iterator[None]:
    """The database that does not answer, or has not our tables, as Unavailable.

    A broken constraint, a value out of range or a wrong statement stays what it is: our mistake.
    """
    try:
        yield
    except DBAPIError as exc:
        reason = str(exc.orig).strip()
        if exc.connection_invalidated or isinstance(exc, OperationalError | InterfaceError | InternalError):
            raise Unavailable(f"the database does not answer: {reason}. Try again shortly.", retry_after_s=2) from exc
        if getattr(exc.orig, "sqlstate", None) in _OTHER_SCHEMA:
            message = f"the database is not as this version needs it: {reason}. Start the trainer of the same version."
            raise Unavailable(message, retry_after_s=2) from exc
        raise
