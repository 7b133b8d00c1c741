"""`nanochat jobs`, `train`, `tokenizer` and `eval`: jobs over REST. Running a recipe without a stack is local.py's."""

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, cast

import typer

from nanochat.cli.client import ApiClient
from nanochat.cli.dry_run import CPU, Assumptions
from nanochat.cli.dry_run import dry_run as print_dry_run
from nanochat.cli.follow import follow, get_job
from nanochat.cli.settings import CliSettings
from nanochat.cli.terminal import age, print_table, say
from nanochat.errors import InvalidConfig
from nanochat.jobs.profiles import profile_names
from nanochat.protocol.jobs import CONFIG_BY_KIND, Job, JobKind, JobSpec, stage_name

app = typer.Typer(help="Jobs: list, show, follow, cancel, retry, logs.", no_args_is_help=True)

JobId = Annotated[str, typer.Argument(help="The job's id.")]
KeyValues = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Config keys; values are JSON or plain text.")
]
Name = Annotated[str | None, typer.Option(help="The job's name, and its run's unless run=... says otherwise.")]
NumProcesses = Annotated[int | None, typer.Option(help="Ranks that torchrun starts; else the profile's, or 1.")]
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
    kind: str, values: KeyValues = None, name: Name = None, num_processes: NumProcesses = None, follow: Follow = False
) -> None:
    """Submit a job of any kind."""
    submit(JobSpec(kind=_kind(kind), name=name, config=parse_values(values), num_processes=num_processes), follow)


def train(
    what: Annotated[str, typer.Argument(help="A profile or a kind of job.")],
    values: KeyValues = None,
    name: Name = None,
    num_processes: NumProcesses = None,
    follow: Follow = True,
    local: Annotated[bool, typer.Option("--local", help="Run here, without any service.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print sizes, memory, time and cost; start nothing.")
    ] = False,
    hardware: Annotated[str, typer.Option(help="Of a dry run: names of its table, with ',' between.")] = "",
    price: Annotated[float | None, typer.Option(min=0, help="Of a dry run: dollars a device and hour.")] = None,
    mfu: Annotated[float | None, typer.Option(min=0.001, max=1, help="Of a dry run: share of the peak.")] = None,
) -> None:
    """Train a profile or a single job and show its progress.

    nanochat train demo pretrain.num_iterations=50, say, or nanochat train pretrain dataset=python-docs depth=4
    """
    spec = job_spec(what, parse_values(values), name, num_processes)
    if dry_run:
        names = [part.strip() for part in hardware.split(",") if part.strip()]
        _dry_run(spec, Assumptions(hardware=names, mfu=mfu, price=price))
    elif local:
        from nanochat.cli.local import run_locally

        raise typer.Exit(run_locally(CliSettings.load(), spec))
    else:
        submit(spec, follow)


def evaluate(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint's id, a job's id, or a path.")],
    values: KeyValues = None,
    name: Name = None,
    num_processes: NumProcesses = None,
) -> None:
    """Evaluate a checkpoint, such as: nanochat eval RUN/sft/step_000500 'evals=["chat"]' max_per_task=100"""
    config = {**parse_values(values), "checkpoint": checkpoint}
    submit(JobSpec(kind="evaluate", name=name, config=config, num_processes=num_processes))


def job_spec(what: str, values: dict[str, Any], name: str | None, num_processes: int | None) -> JobSpec:
    """A job of a kind, or the pipeline of a profile, whose values are stages=[...] and STAGE.KEY=VALUE."""
    if what in CONFIG_BY_KIND:
        return JobSpec(kind=_kind(what), name=name, config=values, num_processes=num_processes)
    if what not in profile_names():
        raise InvalidConfig(
            f"{what!r} is neither a profile ({', '.join(profile_names())}) nor a kind of job "
            f"({', '.join(CONFIG_BY_KIND)}).",
            param="what",
        )
    config: dict[str, Any] = {"profile": what, "overrides": {}}
    for key, value in values.items():
        stage, dot, inner = key.rpartition(".")
        if dot:
            config["overrides"].setdefault(stage, {})[inner] = value
        elif key == "stages":
            config["stages"] = value
        else:
            raise InvalidConfig(
                f"{key}: which stage's? For a profile write, for example, pretrain.{key}=...", param=key
            )
    return JobSpec(kind="pipeline", name=name, config=config, num_processes=num_processes)


def submit(spec: JobSpec, follow_it: bool = True) -> None:
    """POST /v1/jobs, once even when the answer is lost; then its progress and its metrics."""
    body = spec.model_dump(exclude_unset=True, exclude_none=True)

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


def _kind(name: str) -> JobKind:
    """Raises InvalidConfig."""
    if name not in CONFIG_BY_KIND:
        raise InvalidConfig(f"{name!r} is no kind of job; use one of {', '.join(CONFIG_BY_KIND)}.", param="kind")
    return cast(JobKind, name)


def _dry_run(spec: JobSpec, assumptions: Assumptions) -> None:
    wants_cpu = not assumptions.hardware or CPU in assumptions.hardware
    cpu = None
    if wants_cpu:
        from nanochat.cli.local import measured_cpu

        cpu = measured_cpu()
    print_dry_run(spec, CliSettings.load().home_dir, cpu, assumptions)


async def _follow_to_end(api: ApiClient, job_id: str) -> None:
    followed = await get_job(api, job_id)
    for job in await follow(api, job_id):
        label = stage_name(job.kind, job.name, followed.name)
        for metric, value in sorted(job.metrics.items()):
            say(f"{label:<10} {metric} = {value:.4g}")
        if job.output:
            say(f"{label:<10} made {job.output}")


async def _print_json(api: ApiClient, path: str) -> None:
    say(json.dumps(await api.get(path), indent=2))


async def _act(api: ApiClient, job_id: str, action: str) -> None:
    job = Job.model_validate(await api.post(f"/v1/jobs/{job_id}/{action}"))
    say(f"{job.kind} job {job.id} {job.status}")
