"""`nanochat data`: datasets to train on: listed, downloaded as a job or right here, and made out of text files."""

import asyncio
import sys
import time
import uuid
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from nanochat.cli.client import ApiClient
from nanochat.cli.follow import PLAIN_EVERY_S, follow
from nanochat.cli.identity import identity
from nanochat.cli.jobs import with_api
from nanochat.cli.settings import CliSettings
from nanochat.cli.terminal import console, print_table, say
from nanochat.data.catalogue import public_dataset
from nanochat.data.registry import datasets_dir
from nanochat.errors import InvalidConfig
from nanochat.numbers import count
from nanochat.protocol.hub import SCHEME, HubReference
from nanochat.protocol.jobs import DatasetConfig, Job, parse_config
from nanochat.settings import HubSettings

app = typer.Typer(
    help="Datasets: list, download, repackage; conversations about who the model is.", no_args_is_help=True
)

_LOOK_S = 0.2


@app.command("list")
def list_datasets() -> None:
    """The datasets that a job can name, and those that can be downloaded."""

    async def run(api: ApiClient) -> None:
        found = (await api.get("/v1/datasets"))["data"]
        rows = [(item["id"], str(item["num_shards"]), _remark(item)) for item in found]
        print_table(("dataset", "shards", ""), rows, empty="no datasets")

    with_api(run)


@app.command()
def download(
    dataset: Annotated[str, typer.Argument(help="A public dataset's name, or hf://owner/dataset[@revision][/folder].")],
    shards: Annotated[
        int | None, typer.Option(min=1, help="For training; the validation shard comes on top. Default: all.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the folder; else after the dataset.")] = None,
    local: Annotated[bool, typer.Option("--local", help="Download here, without any service.")] = False,
    follow: Annotated[bool, typer.Option(help="Show its progress until it ends.")] = True,
) -> None:
    """Download a dataset, or a benchmark's data. Started again, it goes on where it was.

    nanochat data download climbmix --shards 8
    """
    is_reference = dataset.startswith(SCHEME)
    values: dict[str, Any] = {"name": name, "source": dataset if is_reference else None, "num_shards": shards}
    if not is_reference:
        public = public_dataset(dataset)  # says which there are
        if name not in (None, dataset):
            if public.is_benchmark:
                raise InvalidConfig(f"{dataset} keeps its name: the task looks for it there. Leave --name out.")
            values["source"] = public.source
        values["name"] = name or dataset
    config = parse_config("dataset", {key: value for key, value in values.items() if value is not None})
    assert isinstance(config, DatasetConfig)
    if local:
        _download_here(config)
    else:
        _submit(config, follow)


@app.command()
def repackage(
    source: Annotated[Path, typer.Argument(help="A file or folder of JSONL, text or parquet.")],
    folder: Annotated[str, typer.Argument(help="A name under $NANOCHAT_HOME/datasets, or a path. It must not exist.")],
    shards: Annotated[
        int | None, typer.Option(min=1, help="For training; else about 250 million characters each.")
    ] = None,
    column: Annotated[str, typer.Option(help="Where JSONL and parquet have the text.")] = "text",
    max_document_chars: Annotated[int, typer.Option(min=100, help="Longer documents are split.")] = 30_000,
    seed: Annotated[int, typer.Option(help="Of the order.")] = 0,
) -> None:
    """Make a dataset out of text, right here: shuffled, in parquet shards, the last one for validation.

    nanochat data repackage ~/books books
    """
    from nanochat.data.repackage.repackage import Repackaging
    from nanochat.data.repackage.repackage import repackage as make

    if "/" in folder:
        target = Path(folder).expanduser().absolute()
    else:
        config = parse_config("dataset", {"name": folder, "source": str(source.expanduser().absolute())})
        assert isinstance(config, DatasetConfig)
        target = datasets_dir(CliSettings.load().home_dir) / config.folder_name
    target.parent.mkdir(parents=True, exist_ok=True)
    job = Repackaging(
        source=source.expanduser(),
        target=target,
        num_shards=shards,
        column=column,
        max_document_chars=max_document_chars,
        seed=seed,
    )
    with Progress(TextColumn(target.name), BarColumn(bar_width=30), TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("", total=None)
        counts = make(job, lambda done, total: bar.update(task, completed=done, total=total))
    say(
        f"{counts.num_read:,} documents read, {counts.num_empty:,} empty ones dropped, {counts.num_split:,} long ones "
        f"split: {counts.num_documents:,} of {count(counts.num_chars)} characters in {counts.num_shards} shards, "
        f"{target}"
    )


app.command()(identity)


def _submit(config: DatasetConfig, follow_it: bool) -> None:
    body = config.model_dump(include={"source", "num_shards"}, exclude_none=True)

    async def run(api: ApiClient) -> None:
        path = f"/v1/datasets/{config.folder_name}/download"
        job = Job.model_validate(await api.post(path, body, idempotency_key=uuid.uuid4().hex))
        say(f"{job.kind} job {job.id} ({job.name}) {job.status}")
        if follow_it:
            [job] = await follow(api, job.id)
            say(f"{job.output} is there: {job.metrics.get('num_shards', 0):.0f} shards")

    with_api(run)


def _download_here(config: DatasetConfig) -> None:
    from nanochat.data.hub.download import DownloadProgress, download

    public = None if config.source else public_dataset(config.folder_name)
    source = HubReference.parse(str(config.source)) if public is None else public.reference
    is_benchmark = public is not None and public.is_benchmark
    folder = datasets_dir(CliSettings.load().home_dir) / config.folder_name

    async def run() -> None:
        progress = DownloadProgress()
        running = asyncio.ensure_future(
            download(source, folder, config.num_shards, HubSettings.load(), progress, is_benchmark=is_benchmark)
        )
        try:
            with _Bar(config.folder_name) as bar:
                while not running.done():
                    await asyncio.wait([running], timeout=_LOOK_S)
                    bar.show(progress)
            shards = running.result().shards
        finally:
            running.cancel()
        say(f"{config.folder_name} is there: {len(shards)} shards in {folder}")

    asyncio.run(run())


class _Bar:
    """A bar on a terminal; elsewhere a line every ten seconds."""

    def __init__(self, name: str) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), DownloadColumn(), TransferSpeedColumn())
        self._progress = Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal)
        self._bar = self._progress.add_task(name, total=None)
        self._name = name
        self._said_at = time.monotonic()

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def show(self, progress: Any) -> None:
        if not progress.num_shards:
            return
        shards = f"{progress.num_shards_done} of {progress.num_shards} shards"
        self._progress.update(
            self._bar,
            completed=progress.done_bytes,
            total=progress.total_bytes,
            description=f"{self._name}, {shards}",
        )
        if not console.is_terminal and time.monotonic() - self._said_at >= PLAIN_EVERY_S:
            self._said_at = time.monotonic()
            say(f"{self._name}  {shards}, {count(progress.done_bytes)}B of {count(progress.total_bytes)}B")
            sys.stdout.flush()


def _remark(item: dict[str, Any]) -> str:
    if item["error"]:
        return str(item["error"])
    if item["is_builtin"]:
        return "built from this machine's own text on first use"
    if item["source"]:
        return f"{item['source']}, {item['num_shards_available']} shards in all"
    return ""
