"""`nanochat backup` and `nanochat restore`: one tar file, by name or through a pipe. nanochat/backup fills it."""

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from time import localtime, strftime
from typing import Annotated, BinaryIO

import typer

from nanochat.backup.save import Saved, save
from nanochat.cli.settings import CliSettings
from nanochat.cli.state import stack_lock
from nanochat.cli.terminal import error_console
from nanochat.errors import Conflict, InvalidRequest, NanochatError, NotFound

PIPE = "-"


def backup(
    target: Annotated[str, typer.Argument(help="A file that is not there yet, a folder, or - for standard output.")],
    datasets: Annotated[bool, typer.Option("--datasets", help="Keep the datasets of $NANOCHAT_HOME too.")] = False,
) -> None:
    """Save jobs, models, checkpoints and tokenizers, while the services run."""
    settings = CliSettings.load()
    home, url = settings.home_dir, settings.resolved_database_url
    with _named_in_errors(target), _written(target, home) as (stream, name):
        saved = save(home, url, stream, version=version("nanochat-shared"), with_datasets=datasets)
    _tell(f"saved {_counted(saved)}, {saved.size_bytes / 1e6:,.1f} MB, to {name}")
    for checkpoint, reason in saved.damaged.items():
        _tell(f"left out {checkpoint}: {reason}")
    raise typer.Exit(1 if saved.damaged else 0)


def restore(
    source: Annotated[str, typer.Argument(help="A file that `nanochat backup` made, or - for standard input.")],
) -> None:
    """Put a backup back, into an empty $NANOCHAT_HOME and an empty database."""
    from nanochat.backup.restore import restore as put_back

    settings = CliSettings.load()
    home = settings.home_dir
    with _named_in_errors(str(home)), _read(source) as stream, stack_lock(home):
        restored = put_back(home, settings.resolved_database_url, stream)
    when = strftime("%Y-%m-%d %H:%M:%S", localtime(restored.created))
    _tell(
        f"restored {restored.num_jobs} jobs and {restored.num_checkpoints} checkpoints, every byte verified, "
        f"as they were at {when}"
    )
    for checkpoint, reason in restored.damaged.items():
        _tell(f"left out {checkpoint}, which was damaged when it was backed up: {reason}")
    for name, num_shards in restored.missing_datasets.items():
        _tell(f"put back the dataset {name} ({num_shards} shards): the backup was made without datasets")


@contextmanager
def _written(target: str, home: Path) -> Iterator[tuple[BinaryIO, str]]:
    """The stream to write into, and how to call it. A file appears under its name once it is whole."""
    if target == PIPE:
        yield sys.stdout.buffer, "standard output"
        return
    path = Path(target).expanduser().absolute()
    if path.is_dir():
        path = path / strftime("nanochat-%Y%m%dT%H%M%S.tar")
    if path.exists():
        raise Conflict(f"{path} is there already, and a backup overwrites nothing. Choose another name.")
    if path.is_relative_to(home):
        raise InvalidRequest(
            f"{path} lies in {home}, which is what is backed up. Choose a place outside, on another disk."
        )
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with partial.open("xb") as file:
            yield file, str(path)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _read(source: str) -> Iterator[BinaryIO]:
    if source == PIPE:
        with nullcontext(sys.stdin.buffer) as stream:
            yield stream
        return
    path = Path(source).expanduser()
    if not path.is_file():
        raise NotFound(f"there is no file {path}; give one that `nanochat backup` made, or - for standard input.")
    with path.open("rb") as file:
        yield file


@contextmanager
def _named_in_errors(target: str) -> Iterator[None]:
    """What the system says, with the file it says it of."""
    try:
        yield
    except OSError as exc:
        where = exc.filename or target
        raise NanochatError(f"{where}: {exc.strerror or exc}. Nothing was changed.") from exc


def _counted(saved: Saved) -> str:
    return f"{saved.num_jobs} job{'s'[: saved.num_jobs != 1]}, {saved.num_checkpoints} checkpoints"


def _tell(line: str) -> None:
    """On standard error: standard output may be the backup itself."""
    error_console.print(line, markup=False, soft_wrap=True)
