"""Downloads a dataset: the validation shard first, then the others side by side, skipping what is there and right.

One download a folder at a time. Whatever stops it, every shard with a final name is whole, and the next start goes on.
"""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nanochat.data.disk import Disk
from nanochat.data.hub.client import Hub, RemoteFile
from nanochat.data.hub.ledger import Ledger
from nanochat.data.hub.part import PART_SUFFIX, Part
from nanochat.data.hub.patience import Patience
from nanochat.data.hub.threads import in_thread
from nanochat.data.hub.transfer import fetch
from nanochat.data.registry import Dataset, list_shards
from nanochat.errors import DataError, DeadlineExceeded
from nanochat.files import locked
from nanochat.protocol.hub import HubReference
from nanochat.settings import HubSettings

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class DownloadProgress:
    """How far a download is: read it while that runs. Bytes that were there before count as done."""

    num_shards: int = 0
    num_shards_done: int = 0
    total_bytes: int = 0
    sizes: dict[str, int] = field(default_factory=dict)  # bytes that are there, by shard

    @property
    def done_bytes(self) -> int:
        return sum(self.sizes.values())


async def download(
    source: HubReference,
    folder: Path,
    num_shards: int | None,
    settings: HubSettings,
    progress: DownloadProgress | None = None,
    *,
    is_benchmark: bool = False,
    patience: Patience | None = None,
    disk: Disk | None = None,
) -> Dataset:
    """Bring `num_shards` training shards (None: all) and the validation shard into the folder; all files of a
    benchmark.

    Raises DataError, NotFound, Unavailable, DiskFull, DeadlineExceeded, Conflict (somebody else downloads into it),
    OSError. Cancelling is safe at any time.
    """
    progress = progress or DownloadProgress()
    with locked(folder, wait=False):
        try:
            async with asyncio.timeout(settings.deadline_s or None), Hub(settings, patience) as hub:
                work = _Download(hub, source, folder, disk or Disk(folder), progress, is_benchmark)
                files = await work.run(num_shards)
        except TimeoutError as exc:
            raise DeadlineExceeded(
                f"{source} did not come within {settings.deadline_s:g} s; {progress.num_shards_done} of "
                f"{progress.num_shards} shards are there. Start again: it goes on (NANOCHAT_HUB_DEADLINE_S)."
            ) from exc
        return Dataset(name=folder.name, folder=folder, shards=files if is_benchmark else list_shards(folder))


class _Download:
    def __init__(
        self,
        hub: Hub,
        source: HubReference,
        folder: Path,
        disk: Disk,
        progress: DownloadProgress,
        is_benchmark: bool,
    ) -> None:
        self._hub = hub
        self._source = source
        self._folder = folder
        self._disk = disk
        self._progress = progress
        self._is_benchmark = is_benchmark

    async def run(self, num_shards: int | None) -> tuple[Path, ...]:
        """The files that are now there."""
        listing = await self._hub.list_parquet(self._source)
        self._ledger = await in_thread(Ledger, self._folder, str(self._source), listing.commit)
        self._check_folder(listing.files)
        validation, *training = self._wanted(listing.files, num_shards)
        await in_thread(self._prepare, [validation, *training])
        log.info(
            "download_started",
            extra={"source": str(self._source), "commit": listing.commit, "shards": self._progress.num_shards},
        )
        # Alone and first: with any of the others beside it the folder is a dataset, with the right validation split.
        await self._bring(validation)
        waiting = iter(training)
        num_workers = min(self._hub.num_parallel, len(training))
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(num_workers):
                    group.create_task(self._work(waiting))
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from failed  # the first to fail has cancelled the others
        return tuple(sorted(self._folder / file.name for file in (validation, *training)))

    async def _work(self, waiting: Iterator[RemoteFile]) -> None:
        for file in waiting:
            await self._bring(file)

    async def _bring(self, file: RemoteFile) -> None:
        if not await in_thread(self._ledger.is_right, file):

            def on_size(size_bytes: int) -> None:
                self._progress.sizes[file.name] = size_bytes

            sha256 = await fetch(self._hub, file, self._folder, self._disk, on_size)
            await in_thread(self._ledger.add, file.name, sha256)
            log.info("shard_downloaded", extra={"shard": file.name, "size_bytes": file.size_bytes})
        self._progress.sizes[file.name] = (self._folder / file.name).stat().st_size
        self._progress.num_shards_done += 1

    def _check_folder(self, files: Sequence[RemoteFile]) -> None:
        """Raises DataError when shards of something else lie there: they would be mixed, or be the validation split."""
        other = self._ledger.other_source()
        names = {file.name for file in files}
        foreign = sorted(path.name for path in self._folder.glob("*.parquet") if path.name not in names)
        if other is None and not foreign:
            return
        what = f"shards of {other}" if other else f"{foreign[0]}, which {self._source} does not have"
        raise DataError(f"{self._folder} holds {what}; give another name, or remove the folder first.", param="name")

    def _wanted(self, files: Sequence[RemoteFile], num_shards: int | None) -> list[RemoteFile]:
        """Validation first, then those asked for and those already there, which may be of an older version."""
        *training, validation = files
        if self._is_benchmark:
            if num_shards is not None:
                raise DataError(
                    f"num_shards is {num_shards}; a benchmark comes whole. Leave it out.", param="num_shards"
                )
            return [validation, *training]
        if not training:
            raise DataError(
                f"{self._source} has one shard, {validation.name}, and two are needed: the last one is kept for "
                "validation. Fetch that file and make shards of it: nanochat data repackage.",
                param="source",
            )
        if num_shards is not None and num_shards > len(training):
            raise DataError(
                f"num_shards is {num_shards}; {self._source} has {len(training)} for training and one for validation.",
                param="num_shards",
            )
        present = [file for file in training[num_shards:] if (self._folder / file.name).exists()] if num_shards else []
        return [validation, *training[:num_shards], *present]

    def _prepare(self, wanted: Sequence[RemoteFile]) -> None:
        """Clear what no shard will grow out of, count, and see that there is room. Raises DiskFull."""
        names = {f".{file.name}{PART_SUFFIX}" for file in wanted}
        for path in self._folder.glob(f".*{PART_SUFFIX}*"):
            if path.name.removesuffix(".json") not in names:
                path.unlink(missing_ok=True)
        sizes = {file.name: self._size_there(file) for file in wanted}
        total_bytes = sum(max(file.size_bytes or 0, sizes[file.name]) for file in wanted)
        self._progress.num_shards, self._progress.total_bytes = len(wanted), total_bytes
        self._progress.sizes.update(sizes)
        self._disk.require(total_bytes - sum(sizes.values()), f"{self._source} ({len(wanted)} shards)")

    def _size_there(self, file: RemoteFile) -> int:
        path = self._folder / file.name
        if path.is_file() and file.size_bytes in (None, path.stat().st_size):
            return path.stat().st_size
        return Part(path).size_bytes
