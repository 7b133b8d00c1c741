"""A backup, while the services run: the rows of one moment first, then the files, which are never older than the rows.

What a row names is therefore in the archive: checkpoints and tokenizers are written before their rows, logs and
progress only grow, and a job that was running goes on from what it had saved.
"""

import os
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from nanochat.backup import home as home_files
from nanochat.backup import rows
from nanochat.backup.archive import ArchiveWriter
from nanochat.checkpoint import manifest
from nanochat.errors import CheckpointCorrupt, Conflict, NotFound
from nanochat.jobs.database import Database


@dataclass(kw_only=True)
class Saved:
    """`damaged`: checkpoints that are not what their manifest says, and why; a restore leaves them out."""

    num_jobs: int = 0
    num_checkpoints: int = 0
    size_bytes: int = 0
    damaged: dict[str, str] = field(default_factory=dict)


def save(home: Path, database_url: str, stream: BinaryIO, *, version: str, with_datasets: bool = False) -> Saved:
    """Write a backup into the stream. Raises NotFound where there is nothing, Unavailable, OSError."""
    saved = Saved()
    database = Database(database_url)
    try:
        revision = _revision(database)
        if revision is None and not manifest.checkpoints_dir(home).is_dir():
            raise NotFound(f"there is nothing to back up in {home}: neither a database nor checkpoints.")
        with ArchiveWriter(stream, {"version": version, "created": time.time(), "schema": revision}) as writer:
            for name, lines in rows.dump(database) if revision else ():
                writer.add_bytes(f"rows/{name}", lines)
                saved.num_jobs += lines.count(b"\n") if name.startswith("jobs/") else 0
            for path in home_files.files(home, with_datasets=with_datasets):
                if home_files.is_checkpoint(path):
                    _add_checkpoint(writer, home, path, saved)
                else:
                    _add_file(writer, home, path)
            saved.size_bytes = writer.size_bytes
            writer.close({"damaged": saved.damaged, "datasets": home_files.dataset_shards(home)})
    finally:
        database.close()
    return saved


def _revision(database: Database) -> str | None:
    path = database.engine.url.database
    if database.is_sqlite and path and not Path(path).exists():
        return None
    return database.revision()


def _add_file(writer: ArchiveWriter, home: Path, path: Path) -> None:
    """As long as it is now: a log that grows meanwhile does not matter."""
    try:
        with (home / path).open("rb") as file:
            writer.add_file(f"home/{path.as_posix()}", file, os.fstat(file.fileno()).st_size)
    except FileNotFoundError:
        return
    except OSError as exc:
        if exc.errno is None:  # tarfile's own: the file ended early
            raise Conflict(f"{home / path} became shorter while it was read; back up again.") from exc
        raise


def _add_checkpoint(writer: ArchiveWriter, home: Path, path: Path, saved: Saved) -> None:
    """Its files, compared with its manifest. An incomplete one is left out: nobody could use it."""
    with ExitStack() as held:
        opened = home_files.checkpoint_files(home / path, held)
        if opened is None or manifest.MANIFEST not in opened:
            return
        digests = {
            name: writer.add_file(f"home/{path.as_posix()}/{name}", file, os.fstat(file.fileno()).st_size)
            for name, file in opened.items()
        }
        opened[manifest.MANIFEST].seek(0)
        reason = _damage(home / path / manifest.MANIFEST, opened[manifest.MANIFEST].read(), digests)
    if reason:
        saved.damaged[path.as_posix()] = reason
    else:
        saved.num_checkpoints += 1


def _damage(path: Path, content: bytes, digests: dict[str, str]) -> str | None:
    """What is wrong with a checkpoint whose files have these digests; None for nothing."""
    try:
        expected = manifest.parse(content, path)["files"]
    except CheckpointCorrupt as exc:
        return exc.message
    wrong = [name for name, file in expected.items() if digests.get(name) != file["sha256"]]
    return f"its file {wrong[0]} is missing or has changed since it was written" if wrong else None
