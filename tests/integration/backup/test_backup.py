"""Back up, lose everything, restore: nothing is lost, in either database; and what is refused changes nothing."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from nanochat.backup.restore import Restored, restore
from nanochat.backup.save import save
from nanochat.checkpoint import manifest
from nanochat.errors import Conflict, DataError, InvalidRequest, NotFound, Unavailable
from nanochat.jobs.database import Database
from nanochat.jobs.leases import Leases
from nanochat.jobs.models import ModelStore
from nanochat.jobs.store import JobStore
from nanochat.jobs.tables import SCHEMA_REVISION
from tests.integration.inference.chain_model import ABAB, damaged, save_chain

from .conftest import NUM_JOBS, NUM_STAGES, fill, saved, sqlite_url

UrlOf = Callable[[Path], str]


@pytest.fixture(params=["sqlite", "postgres"])
def url_of(request: pytest.FixtureRequest) -> UrlOf:
    """The database of a home: its own, or the one empty PostgreSQL."""
    if request.param == "sqlite":
        return sqlite_url
    url: str = request.getfixturevalue("empty_postgres_url")
    return lambda home: url


def put_back(home: Path, file: Path, url: str = "") -> Restored:
    with file.open("rb") as stream:
        return restore(home, url or sqlite_url(home), stream)


def everything(url: str) -> str:
    """Jobs with their events, and models, as JSON."""
    database = Database(url)
    try:
        jobs = JobStore(database)
        found = sorted(jobs.find(limit=100), key=lambda job: job.id)
        events = {job.id: [repr(event) for event in jobs.events(job.id)] for job in found}
        choices = [repr(choice) for choice in ModelStore(database).choices()]
        return json.dumps([[job.model_dump() for job in found], events, choices], default=str, sort_keys=True)
    finally:
        database.close()


def files(home: Path) -> dict[str, bytes]:
    kept = ("checkpoints", "tokenizers", "jobs")
    paths = [path for top in kept for path in (home / top).rglob("*") if path.is_file()]
    return {str(path.relative_to(home)): path.read_bytes() for path in paths if not path.name.startswith(".")}


def contents(home: Path) -> set[str]:
    return {path.name for path in home.iterdir()} - {"stack.lock"}


def test_nothing_is_lost_into_either_database(full_home: Path, url_of: UrlOf, tmp_path: Path) -> None:
    file = saved(full_home, tmp_path / "b.tar")
    new = tmp_path / "new"
    restored = put_back(new, file, url_of(new))
    assert (restored.num_jobs, restored.num_checkpoints, restored.damaged) == (NUM_JOBS, 2, {})
    assert everything(url_of(new)) == everything(sqlite_url(full_home))
    assert files(new) == files(full_home)
    assert contents(new) <= {"checkpoints", "tokenizers", "jobs", "nanochat.db", "nanochat.db-wal", "nanochat.db-shm"}


def test_from_postgres_into_sqlite(full_home: Path, empty_postgres_url: str, tmp_path: Path) -> None:
    fill(Database(empty_postgres_url))
    put_back(tmp_path / "new", saved(full_home, tmp_path / "b.tar", url=empty_postgres_url))
    assert everything(sqlite_url(tmp_path / "new")) == everything(empty_postgres_url)


def test_work_goes_on_where_it_was(full_home: Path, url_of: UrlOf, tmp_path: Path) -> None:
    put_back(tmp_path / "new", saved(full_home, tmp_path / "b.tar"), url_of(tmp_path / "new"))
    database = Database(url_of(tmp_path / "new"))
    jobs = JobStore(database)
    ready = [job for job in jobs.find(limit=100) if job.kind == "pretrain"]
    assert Leases(database).claim(ready[0].id, "w") is not None
    again = jobs.find(limit=100)
    assert ModelStore(database).rollback("nanochat").checkpoint == "nano/sft/step_000001"
    assert ModelStore(database).live_replicas("nanochat") == []
    assert len(again) == NUM_JOBS
    database.close()


def test_a_backup_while_jobs_are_written_is_of_one_moment(full_home: Path, tmp_path: Path) -> None:
    """A pipeline's parent and its stages are written together, so no backup has one without the others."""
    script = (
        "import sys\n"
        "from nanochat.jobs.database import Database\n"
        "from nanochat.jobs.store import JobStore\n"
        "from nanochat.protocol.jobs import JobSpec\n"
        "jobs = JobStore(Database(sys.argv[1]))\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    jobs.submit(JobSpec(kind='pipeline', config={'profile': 'demo'}))\n"
    )
    with writing(script, sqlite_url(full_home)):
        for number in range(5):
            saved(full_home, tmp_path / f"{number}.tar")
    numbers = []
    for number in range(5):
        numbers.append(put_back(tmp_path / f"new{number}", tmp_path / f"{number}.tar").num_jobs)
        database = Database(sqlite_url(tmp_path / f"new{number}"))
        found = JobStore(database).find(limit=100_000)
        parents = [job for job in found if job.kind == "pipeline"]
        assert len(found) == (1 + NUM_STAGES) * len(parents) + 1  # the tokenizer job of its own
        database.close()
    assert numbers == sorted(numbers)


@contextmanager
def writing(script: str, *arguments: str) -> Iterator[None]:
    command = [sys.executable, "-c", script, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield
            assert process.poll() is None, "the writer has ended early"
        finally:
            process.kill()


def test_datasets_are_kept_when_asked_for_and_named_when_not(full_home: Path, tmp_path: Path) -> None:
    without = put_back(tmp_path / "a", saved(full_home, tmp_path / "a.tar"))
    assert without.missing_datasets == {"mine": 1}
    assert not (tmp_path / "a" / "datasets").exists()
    with_them = put_back(tmp_path / "b", saved(full_home, tmp_path / "b.tar", with_datasets=True))
    assert with_them.missing_datasets == {}
    assert (tmp_path / "b" / "datasets" / "mine" / "shard_00000.parquet").read_text() == "PAR1"


def test_a_damaged_checkpoint_is_named_and_left_out(full_home: Path, tmp_path: Path) -> None:
    bad = damaged(full_home, "nano", 3)
    with (tmp_path / "b.tar").open("xb") as stream:
        found = save(full_home, sqlite_url(full_home), stream, version="test")
    assert list(found.damaged) == [f"checkpoints/{bad}"]
    assert "model.safetensors" in found.damaged[f"checkpoints/{bad}"]
    assert found.num_checkpoints == 2
    restored = put_back(tmp_path / "new", tmp_path / "b.tar")
    assert restored.num_checkpoints == 2 and list(restored.damaged) == [f"checkpoints/{bad}"]
    assert {info.step for info in manifest.list_checkpoints(tmp_path / "new")} == {1, 2}


def test_an_unfinished_checkpoint_is_left_out(full_home: Path, tmp_path: Path) -> None:
    (full_home / "checkpoints/nano/sft/step_000002" / manifest.MANIFEST).unlink()
    assert put_back(tmp_path / "new", saved(full_home, tmp_path / "b.tar")).num_checkpoints == 1


def test_checkpoints_on_another_disk_are_followed_and_circles_are_not(full_home: Path, tmp_path: Path) -> None:
    (full_home / "checkpoints").rename(tmp_path / "elsewhere")
    (full_home / "checkpoints").symlink_to(tmp_path / "elsewhere")
    (full_home / "jobs" / "loop").symlink_to(full_home / "jobs")
    assert put_back(tmp_path / "new", saved(full_home, tmp_path / "b.tar")).num_checkpoints == 2


def test_a_home_that_holds_something_is_not_overwritten(full_home: Path, tmp_path: Path) -> None:
    file = saved(full_home, tmp_path / "b.tar")
    before = everything(sqlite_url(full_home))
    with pytest.raises(Conflict, match="overwrites nothing"):
        put_back(full_home, file)
    assert everything(sqlite_url(full_home)) == before
    (tmp_path / "new" / "tokenizers" / "x").mkdir(parents=True)
    (tmp_path / "new" / "tokenizers" / "x" / "tokenizer.json").write_text("mine")
    with pytest.raises(Conflict, match=r"tokenizers/x/tokenizer.json is there already"):
        put_back(tmp_path / "new", file)
    assert contents(tmp_path / "new") == {"tokenizers"}


def test_a_database_that_holds_something_is_not_overwritten(
    full_home: Path, empty_postgres_url: str, tmp_path: Path
) -> None:
    file = saved(full_home, tmp_path / "b.tar")
    fill(Database(empty_postgres_url))
    with pytest.raises(Conflict, match="overwrites nothing"):
        put_back(tmp_path / "new", file, empty_postgres_url)
    assert contents(tmp_path / "new") == set()


def test_what_empty_services_have_made_is_no_obstacle(full_home: Path, url_of: UrlOf, tmp_path: Path) -> None:
    file, new = saved(full_home, tmp_path / "b.tar"), tmp_path / "new"
    for name in ("logs", "redis", "jobs", "checkpoints"):
        (new / name).mkdir(parents=True)
    database = Database(url_of(new))
    database.upgrade()
    ModelStore(database).heartbeat("r2", "nanochat", None, None)
    database.close()
    assert put_back(new, file, url_of(new)).num_jobs == NUM_JOBS


def test_a_backup_that_is_cut_short_changes_nothing(full_home: Path, tmp_path: Path) -> None:
    file = saved(full_home, tmp_path / "b.tar")
    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(DataError, match="cut short"):
        put_back(tmp_path / "new", file)
    assert contents(tmp_path / "new") == set()


def test_rows_that_cannot_be_stored_leave_no_files(full_home: Path, tmp_path: Path) -> None:
    file, new = saved(full_home, tmp_path / "b.tar"), tmp_path / "new"
    away = "postgresql://nobody:secret@127.0.0.1:1/none"
    with pytest.raises(Unavailable) as refused:
        put_back(new, file, away)
    assert "secret" not in refused.value.message
    assert contents(new) == set()


def test_a_newer_schema_is_refused_and_leaves_no_files(full_home: Path, tmp_path: Path) -> None:
    database = Database(sqlite_url(full_home))
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(InvalidRequest, match="9999"):
        put_back(tmp_path / "new", saved(full_home, tmp_path / "b.tar"))
    assert "checkpoints" not in contents(tmp_path / "new")


def test_checkpoints_without_a_database_are_kept_too(tmp_path: Path) -> None:
    save_chain(tmp_path / "old", "nano", 1, ABAB)
    restored = put_back(tmp_path / "new", saved(tmp_path / "old", tmp_path / "b.tar"))
    assert (restored.num_jobs, restored.num_checkpoints) == (0, 1)


def test_an_empty_home_has_nothing_to_back_up(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    with pytest.raises(NotFound, match="nothing to back up"):
        saved(tmp_path / "old", tmp_path / "b.tar")


def test_the_schema_of_this_version_is_what_tests_restore(full_home: Path) -> None:
    assert Database(sqlite_url(full_home)).revision() == SCHEMA_REVISION
