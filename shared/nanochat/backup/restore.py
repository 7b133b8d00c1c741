"""Puts a backup back, into an empty home and an empty database, or leaves both as they were.

Everything is unpacked and checked beside its place first; then folders are renamed and all rows appear in one
transaction, so that services which run already see the whole or nothing.
"""

import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from nanochat.backup import rows
from nanochat.backup.archive import unpack
from nanochat.backup.home import dataset_shards, files
from nanochat.checkpoint import manifest
from nanochat.data.registry import BUILTIN_DATASETS
from nanochat.errors import Conflict
from nanochat.jobs.database import Database


@dataclass(frozen=True, kw_only=True)
class Restored:
    """`created`: the Unix time of the backup. `missing_datasets`: those to put back, with their number of shards."""

    created: float
    num_jobs: int
    num_checkpoints: int
    damaged: dict[str, str] = field(default_factory=dict)
    missing_datasets: dict[str, int] = field(default_factory=dict)


def restore(home: Path, database_url: str, stream: BinaryIO) -> Restored:
    """Raises Conflict where something is there already, DataError on a bad backup, CheckpointCorrupt, OSError."""
    database = Database(database_url)
    home.mkdir(parents=True, exist_ok=True)
    unpacked = Path(tempfile.mkdtemp(prefix=".restoring-", dir=home))
    try:
        _require_empty(home, database)
        head, notes = unpack(stream, unpacked)
        (unpacked / "home").mkdir(exist_ok=True)
        num_checkpoints = _check_checkpoints(unpacked / "home", notes["damaged"])
        with ExitStack() as undo:
            _move_in(unpacked / "home", home, undo)
            counts = _load_rows(database, unpacked / "rows", head["schema"])
            undo.pop_all()
        return Restored(
            created=head["created"],
            num_jobs=counts.get("jobs", 0),
            num_checkpoints=num_checkpoints,
            damaged=notes["damaged"],
            missing_datasets=_missing(home, notes["datasets"]),
        )
    finally:
        database.close()
        shutil.rmtree(unpacked, ignore_errors=True)


def _require_empty(home: Path, database: Database) -> None:
    """Raises Conflict, before gigabytes are read, where a restore would overwrite something."""
    if _has_database(database):
        rows.require_empty(database)
    for path in files(home, with_datasets=False):
        raise Conflict(
            f"{home / path} is there already, and a restore overwrites nothing. "
            "Give another NANOCHAT_HOME, or move away what is in this one."
        )


def _has_database(database: Database) -> bool:
    path = database.engine.url.database
    return not database.is_sqlite or not path or Path(path).exists()


def _load_rows(database: Database, folder: Path, revision: str | None) -> dict[str, int]:
    """Rows go into the schema that they came from, which is then upgraded."""
    if revision is None:
        return {}
    found = database.revision() if _has_database(database) else None
    if found is None:
        database.upgrade(revision)
    elif found != revision:
        raise Conflict(
            f"the database has schema {found} and the backup {revision}. Give a database without any tables: "
            "the backup's are made, filled, and upgraded."
        )
    counts = rows.load(database, folder)
    database.upgrade()
    return counts


def _check_checkpoints(unpacked: Path, damaged: dict[str, str]) -> int:
    """Every byte against its manifest; those that were damaged before the backup go. Raises CheckpointCorrupt."""
    for name in damaged:
        shutil.rmtree(unpacked / name, ignore_errors=True)
    folders = [path.parent for path in manifest.checkpoints_dir(unpacked).glob(f"*/*/step_*/{manifest.MANIFEST}")]
    for folder in folders:
        manifest.verify(folder)
    return len(folders)


def _move_in(unpacked: Path, home: Path, undo: ExitStack) -> None:
    """Rename what was unpacked into the home. Raises Conflict before anything is moved."""
    names = sorted(path.name for path in unpacked.iterdir())
    for name in names:
        there = home / name
        if there.is_dir() and not there.is_symlink() and not any(there.rglob("*")):
            continue  # a folder that a service made at its start
        if there.exists() or there.is_symlink():
            raise Conflict(
                f"{there} is there already, and a restore overwrites nothing. "
                "Move it away, or give another NANOCHAT_HOME."
            )
    for name in names:
        if (home / name).is_dir():
            _remove_empty(home / name)
        (unpacked / name).rename(home / name)
        undo.callback((home / name).rename, unpacked / name)


def _remove_empty(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir()
    folder.rmdir()


def _missing(home: Path, kept: dict[str, Any]) -> dict[str, int]:
    """Datasets of the backup's home that this one has not as they were."""
    here = dataset_shards(home)
    return {
        name: len(shards) for name, shards in kept.items() if name not in BUILTIN_DATASETS and here.get(name) != shards
    }
