"""Whole files and whole folders, or none: a crash or a second process at the same time never leaves half of one.

Everything is written under a hidden name beside its place, flushed to the disk, and renamed. What the files hold is
the business of the caller (tokenizer/, data/builtin.py, checkpoint/store.py).
"""

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from nanochat.errors import Conflict, InvalidConfig

_WRITING = ".writing-"
_REPLACED = ".replaced-"


def require_writable(folder: Path) -> None:
    """Make the folder if need be, and write into it. Raises InvalidConfig that says what stands against it."""
    probe = folder / f".probe{_WRITING}{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x")
    except OSError as exc:
        raise InvalidConfig(
            f"{folder} cannot be written by user {os.getuid()}: {exc.strerror}. "
            f"Make room there, give it to that user (chown -R {os.getuid()}), or name another folder or volume."
        ) from exc
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def write_file(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step. Parent folders are made. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}{_WRITING}{secrets.token_hex(4)}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Be the only process on this machine inside `locked(folder)`; ends with the process.

    Waits for its turn, or raises Conflict where it shall not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise Conflict(f"another process is writing into {folder}; wait for its end, or stop it.") from exc
        yield


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """An empty folder to fill; when the block ends well it takes the place of `target`, with what stood there before
    removed. When the block raises, nothing has changed. Call within locked(target.parent).
    """
    recover(target.parent)
    temporary = target.with_name(f".{target.name}{_WRITING}{secrets.token_hex(4)}")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for path in [*temporary.rglob("*"), temporary]:
            sync(path)
        _swap(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Delete a folder so that no reader meets half of it: first its name goes, then its files."""
    doomed = folder.with_name(f".{folder.name}{_WRITING}{secrets.token_hex(4)}")
    folder.rename(doomed)
    shutil.rmtree(doomed)


def recover(parent: Path) -> None:
    """Clear what killed processes left in `parent`: a folder whose replacement was cut short gets its name back, and
    unfinished ones go. Call within locked(parent), or the unfinished one may be somebody's work of this moment.
    """
    for path in list(parent.glob(f".*{_REPLACED}*")):
        original = parent / path.name[1:].partition(_REPLACED)[0]
        if original.exists():
            shutil.rmtree(path)
        else:
            path.rename(original)
    for path in list(parent.glob(f".*{_WRITING}*")):
        if path.is_dir():
            shutil.rmtree(path)


def _swap(temporary: Path, target: Path) -> None:
    """Put `temporary` in the place of `target`. Between the two renames the old one is kept for recover()."""
    replaced = target.with_name(f".{target.name}{_REPLACED}{secrets.token_hex(4)}")
    if target.exists():
        target.rename(replaced)
    temporary.rename(target)
    sync(target.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def sync(path: Path) -> None:
    """What was written to a file, or renamed in a folder, outlives a loss of power after this."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
