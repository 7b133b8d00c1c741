"""Makes a dataset: downloads its shards (data/hub), or makes them out of text on this machine (data/repackage).

Progress counts bytes. A download that is stopped or killed goes on where it was; repackaging begins anew.
"""

import asyncio
import logging
from pathlib import Path

from nanochat.data.catalogue import public_dataset
from nanochat.data.hub.download import DownloadProgress, download
from nanochat.data.registry import datasets_dir
from nanochat.data.repackage.repackage import Repackaging, repackage
from nanochat.protocol.hub import HubReference
from nanochat.protocol.jobs import DatasetConfig
from nanochat.recipes.job import JobContext, Outcome
from nanochat.recipes.stop import Stopped
from nanochat.settings import HubSettings

log = logging.getLogger(__name__)

_LOOK_S = 0.2  # at the signal to stop, and how far it is


def run(job: JobContext, config: DatasetConfig) -> Outcome:
    """The output is the dataset's name. Raises DataError, NotFound, Unavailable, DiskFull, Stopped and others."""
    return _repackage(job, config) if config.is_repackaging else asyncio.run(_download(job, config))


def _repackage(job: JobContext, config: DatasetConfig) -> Outcome:
    assert config.source is not None

    def on_progress(done: int, total: int) -> None:
        job.stop.check()
        job.progress.progress(min(done, total - 1), total)

    counts = repackage(
        Repackaging(
            source=Path(config.source),
            target=datasets_dir(job.home) / config.folder_name,
            num_shards=config.num_shards,
            column=config.column,
            max_document_chars=config.max_document_chars,
            seed=config.seed,
        ),
        on_progress,
    )
    job.progress.progress(1, 1, force=True)
    return Outcome(output=config.folder_name, values=counts.as_values())


async def _download(job: JobContext, config: DatasetConfig) -> Outcome:
    name = config.folder_name
    public = None if config.source else public_dataset(name)
    source = HubReference.parse(str(config.source)) if public is None else public.reference
    progress = DownloadProgress()
    folder = datasets_dir(job.home) / name
    is_benchmark = public is not None and public.is_benchmark
    running = asyncio.ensure_future(
        download(source, folder, config.num_shards, HubSettings.load(), progress, is_benchmark=is_benchmark)
    )
    reported = -1
    while not running.done():
        await asyncio.wait([running], timeout=_LOOK_S)
        if progress.total_bytes:
            job.progress.progress(progress.done_bytes, progress.total_bytes)
        if progress.num_shards_done != reported:
            reported = progress.num_shards_done
            job.progress.metrics(reported, {"num_shards_done": reported, "num_shards": progress.num_shards})
        if job.stop.is_set and not running.done():
            running.cancel()
            await asyncio.wait([running])
            raise Stopped
    dataset = running.result()
    job.progress.progress(progress.total_bytes, progress.total_bytes, force=True)
    size_bytes = sum(path.stat().st_size for path in dataset.shards)
    log.info("dataset_downloaded", extra={"dataset": name, "source": str(source), "size_bytes": size_bytes})
    return Outcome(output=name, values={"num_shards": len(dataset.shards), "size_bytes": size_bytes})
