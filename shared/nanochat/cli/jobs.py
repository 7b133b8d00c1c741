"""`nanochat jobs`, `train`, `tokenizer` and `eval`: jobs over REST. Running a recipe without a stack is local.py's."""

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer

from nanochat.cli.client import ApiClient
from nanochat.cli.follow import follow
from nanochat.cli.settings import CliSettings
from nanochat.cli.terminal import age, print_table, say
from nanochat.errors import InvalidConfig
from nanochat.protocol.jobs import CONFIG_BY_KIND, Job

app = typer.Typer(help="Jobs: list, show, follow, cancel, retry, logs.", no_args_is_help=True)

JobId = Annotated[str, typer.Argument(help="The job's id.")]
KeyValues = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Config keys; values are JSON or plain text.")
]
Name = Annotated[str | None, typer.Option(help="The job's name, and its run's unless run=... says otherwise.")]
NumProcesses = Annotated[int, typer.Option(help="Ranks that torchrun starts.")]
Follow = Annotated[bool, typer.Option(help="Show its progress until it ends.")]


@app.command("list")
def list_jobs(status: str | None = None, kind: str | None = None, limit: int = 20) -> None:
    """The newest jobs."""

    async def run(api: ApiClient) -> None:
        page = await api.get("/v1/jobs", status=status, kind=kind, limit=limit)
        jobs = [Job.model_validate(item) for item in page["data"]]
        print_table(
            ("id", "kind", "name", "status", "done", "created"),
            [
                (job.id, job.kind, job.name, job.status, f"{job.progress.ratio:.0%}", age(job.created_at))
                for job in jobs
            ],
            empty="no jobs yet; submit one with: nanochat train",
        )

    with_api(run)


@app.command()
def show(job_id: JobId) -> None:
    """A job as JSON."""
    with_api(lambda api: _print_json(api, f"/v1/jobs/{job_id}"))


@app.command("follow")
def follow_job(job_id: JobId) -> None:
    """Show a job's progress until it ends."""
    with_api(lambda api: _follow_to_end(api, job_id))


@app.command()
def cancel(job_id: JobId) -> None:
    """Stop a job. What it has saved stays."""
    with_api(lambda api: _act(api, job_id, "cancel"))


@app.command()
def retry(job_id: JobId) -> None:
    """Run a failed or cancelled job again, from its last checkpoint."""
    with_api(lambda api: _act(api, job_id, "retry"))


@app.command()
def logs(job_id: JobId) -> None:
    """A job's log."""

    async def run(api: ApiClient) -> None:
        say((await api.get_text(f"/v1/jobs/{job_id}/logs")).rstrip("\n"))

    with_api(run)


@app.command("submit")
def submit_job(
    kind: str, values: KeyValues = None, name: Name = None, num_processes: NumProcesses = 1, follow: Follow = False
) -> None:
    """Submit a job of any kind."""
    submit(kind, values, name=name, num_processes=num_processes, follow_it=follow)


def train(
    kind: Annotated[str, typer.Argument(help=f"One of: {', '.join(CONFIG_BY_KIND)}.")],
    values: KeyValues = None,
    name: Name = None,
    num_processes: NumProcesses = 1,
    follow: Follow = True,
    local: Annotated[bool, typer.Option("--local", help="Run the recipe here, without any service.")] = False,
) -> None:
    """Train: submit a job and show its progress, such as: nanochat train pretrain dataset=python-docs depth=4"""
    if local:
        from nanochat.cli.local import run_recipe

        raise typer.Exit(run_recipe(CliSettings.load(), kind, name or kind, parse_values(values), num_processes))
    submit(kind, values, name=name, num_processes=num_processes, follow_it=follow)


def tokenizer(values: KeyValues = None, name: Name = None, follow: Follow = True) -> None:
    """Train a tokenizer, such as: nanochat tokenizer dataset=python-docs vocab_size=4096"""
    submit("tokenizer", values, name=name, num_processes=1, follow_it=follow)


def evaluate(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint's id, a job's id, or a path.")],
    values: KeyValues = None,
    name: Name = None,
    num_processes: NumProcesses = 1,
) -> None:
    """Evaluate a checkpoint, such as: nanochat eval RUN/sft/step_000500 'evals=["chat"]' max_per_task=100"""
    submit("evaluate", [*(values or []), f"checkpoint={checkpoint}"], name=name, num_processes=num_processes)


def submit(
    kind: str, values: list[str] | None, *, name: str | None, num_processes: int, follow_it: bool = True
) -> None:
    """POST /v1/jobs, once even when the answer is lost; then its progress and its metrics."""
    body: dict[str, Any] = {"kind": kind, "config": parse_values(values), "num_processes": num_processes}
    if name:
        body["name"] = name

    async def run(api: ApiClient) -> None:
        job = Job.model_validate(await api.post("/v1/jobs", body, idempotency_key=uuid.uuid4().hex))
        say(f"{job.kind} job {job.id} ({job.name}) {job.status}")
        if follow_it:
            await _follow_to_end(api, job.id)

    with_api(run)


def parse_values(values: list[str] | None) -> dict[str, Any]:
    """["depth=4", "dataset=english"] as {"depth": 4, "dataset": "english"}. What is no JSON is taken as text."""
    parsed: dict[str, Any] = {}
    for item in values or []:
        key, equals, text = item.partition("=")
        if not equals or not key:
            raise InvalidConfig(f"{item!r} is no KEY=VALUE; write, for example, depth=4.", param=item)
        try:
            parsed[key] = json.loads(text)
        except ValueError:
            parsed[key] = text
    return parsed


def with_api(run: Callable[[ApiClient], Awaitable[None]]) -> None:
    """Run one command's calls against the gateway that the settings name."""

    async def main() -> None:
        async with ApiClient.from_settings(CliSettings.load()) as api:
            await run(api)

    asyncio.run(main())


async def _follow_to_end(api: ApiClient, job_id: str) -> None:
    for job in await follow(api, job_id):
        for metric, value in sorted(job.metrics.items()):
            say(f"{job.kind:<10} {metric} = {value:.4g}")
        if job.output:
            say(f"{job.kind:<10} made {job.output}")


async def _print_json(api: ApiClient, path: str) -> None:
    say(json.dumps(await api.get(path), indent=2))


async def _act(api: ApiClient, job_id: str, action: str) -> None:
    job = Job.model_validate(await api.post(f"/v1/jobs/{job_id}/{action}"))
    say(f"{job.kind} job {job.id} {job.status}")
