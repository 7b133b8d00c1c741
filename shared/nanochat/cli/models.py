"""`nanochat models`: what can be chatted with."""

from typing import Annotated

import typer

from nanochat.cli.client import ApiClient
from nanochat.cli.jobs import with_api
from nanochat.cli.settings import CliSettings
from nanochat.cli.terminal import age, print_table, say

app = typer.Typer(help="Models: list, promote, rollback, checkpoints.", no_args_is_help=True)

Model = Annotated[str | None, typer.Option("--model", help="The served name; default: $NANOCHAT_MODEL.")]


@app.command("list")
def list_models() -> None:
    """The models that are served now."""

    async def run(api: ApiClient) -> None:
        models = (await api.get("/v1/models"))["data"]
        rows = [(model["id"], model.get("nanochat", {}).get("checkpoint", "")) for model in models]
        print_table(("model", "checkpoint"), rows, empty="no model is served yet; train one and promote it")

    with_api(run)


@app.command()
def checkpoints() -> None:
    """The checkpoints that can be promoted."""

    async def run(api: ApiClient) -> None:
        found = (await api.get("/v1/checkpoints"))["data"]
        rows = [(item["id"], age(item["created_at"])) for item in found]
        print_table(("checkpoint", "written"), rows, empty="no checkpoints yet")

    with_api(run)


@app.command()
def promote(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint's id, or a job's.")], model: Model = None
) -> None:
    """Serve a checkpoint. Requests that are being answered keep the old one."""
    name = model or CliSettings.load().model

    async def run(api: ApiClient) -> None:
        await api.post(f"/v1/models/{name}/promote", {"checkpoint": checkpoint})
        say(f"{name} is {checkpoint} now")

    with_api(run)


@app.command()
def rollback(model: Model = None) -> None:
    """Serve again what was served before."""
    name = model or CliSettings.load().model

    async def run(api: ApiClient) -> None:
        await api.post(f"/v1/models/{name}/rollback")
        say(f"{name} is rolled back")

    with_api(run)
