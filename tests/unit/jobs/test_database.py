import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from nanochat.errors import InvalidConfig, Unavailable
from nanochat.jobs.database import MIGRATIONS, Database
from nanochat.jobs.tables import SCHEMA_REVISION, Base, ModelRow


def test_migrations_make_exactly_the_tables_that_the_code_uses(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_the_newest_migration_is_the_one_that_services_wait_for() -> None:
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == SCHEMA_REVISION


def test_upgrading_twice_changes_nothing_and_touches_no_logger(database: Database) -> None:
    handlers = list(logging.getLogger().handlers)
    database.upgrade()
    assert database.revision() == SCHEMA_REVISION
    assert logging.getLogger().handlers == handlers


def test_upgrading_from_several_sides_at_once_works(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new' / 'jobs.db'}"
    databases = [Database(url) for _ in range(4)]
    with ThreadPoolExecutor(len(databases)) as pool:
        for upgraded in [pool.submit(database.upgrade) for database in databases]:
            upgraded.result()
    for database in databases:
        assert database.revision() == SCHEMA_REVISION
        database.close()


def test_a_service_without_a_schema_is_told_to_start_the_trainer(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'none.db'}")
    with pytest.raises(Unavailable, match=r"waited 0\.1 s.*start the trainer"):
        database.wait_for_schema(timeout_s=0.1)
    assert not (tmp_path / "none.db").exists()


def test_a_server_that_is_away_is_waited_for_and_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("nanochat.jobs.database._QUIET_S", 0.0)
    database = Database("postgresql://nanochat@127.0.0.1:1/nanochat")
    with caplog.at_level(logging.WARNING), pytest.raises(Unavailable, match=r"waited 0\.5 s.*does not answer"):
        database.wait_for_server(timeout_s=0.5)
    assert [record.message for record in caplog.records] == ["database_awaited"]


def test_sqlite_has_no_server_to_wait_for(tmp_path: Path) -> None:
    Database(f"sqlite:///{tmp_path / 'none.db'}").wait_for_server(timeout_s=0.1)
    assert not (tmp_path / "none.db").exists()


def test_a_schema_of_another_version_is_refused(database: Database) -> None:
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Unavailable, match=f"schema 9999, this version needs {SCHEMA_REVISION}"):
        database.require_schema()


def test_a_transaction_that_raises_changes_nothing(database: Database) -> None:
    with pytest.raises(RuntimeError), database.write() as session:
        session.add(ModelRow(name="m", checkpoint="c", previous=None, generation=1, promoted_at=0.0))
        session.flush()
        raise RuntimeError
    with database.read() as session:
        assert session.get(ModelRow, "m") is None


def test_a_writer_waits_for_another_one(database: Database) -> None:
    is_inside, may_leave = threading.Event(), threading.Event()

    def hold() -> None:
        with database.write() as session:
            session.add(ModelRow(name="a", checkpoint="c", previous=None, generation=1, promoted_at=0.0))
            session.flush()
            is_inside.set()
            assert may_leave.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    assert is_inside.wait(10)
    threading.Timer(0.2, may_leave.set).start()
    with database.write() as session:
        assert session.get(ModelRow, "a") is not None
    holder.join()


def test_foreign_keys_hold(database: Database) -> None:
    with database.read() as session:
        assert session.execute(text("PRAGMA foreign_keys")).scalar_one() == 1
        assert session.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"


@pytest.mark.parametrize("url", ["nonsense", "oracle-of-delphi://x/y"])
def test_a_url_that_names_no_database_is_explained(url: str) -> None:
    with pytest.raises(InvalidConfig, match="NANOCHAT_DATABASE_URL"):
        Database(url)


def test_a_server_that_is_away_is_unavailable() -> None:
    pytest.importorskip("psycopg")
    database = Database("postgresql://nobody@127.0.0.1:9/none")
    with pytest.raises(Unavailable, match="does not answer"):
        database.revision()
