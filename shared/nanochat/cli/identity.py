"""`nanochat data identity`: conversations about who the model is, from a persona; by itself or by an endpoint."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nanochat.cli.client import DEFAULT_URL
from nanochat.cli.settings import CliSettings
from nanochat.cli.state import StackState
from nanochat.cli.terminal import console, say
from nanochat.errors import Conflict
from nanochat.files import write_file
from nanochat.identity.generator import Counts, Endpoint, generate
from nanochat.tasks.identity import Identity
from nanochat.tasks.persona import Persona, default_persona


def identity(
    file: Annotated[Path, typer.Argument(help="The JSONL file to write; an sft mixture's `file` takes it.")],
    persona: Annotated[
        Path | None, typer.Option(help="A TOML file: name, maker, facts. Default: nanochat's own.")
    ] = None,
    num: Annotated[int, typer.Option(min=1, max=1_000_000, help="Conversations.")] = 1000,
    model: Annotated[
        str | None, typer.Option(help="The model that writes them; without one they are made of built-in sentences.")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="An OpenAI-compatible address, up to /v1. Default: this project's gateway.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of what is asked for.")] = 0,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Requests at once.")] = 8,
    temperature: Annotated[float, typer.Option(min=0.0, max=2.0)] = 1.0,
) -> None:
    """Write conversations about who the model is. With --model, started again, it goes on where it was.

    nanochat data identity who.jsonl --persona me.toml --endpoint https://api.example.com/v1 --model large
    """
    who = Persona.load(persona.expanduser()) if persona else default_persona()
    target = file.expanduser()
    if model is None:
        _write_builtin(who, target, num, seed)
        return
    settings = CliSettings.load()
    if endpoint is None:
        running = None if settings.url else StackState.running(settings.home_dir)
        url, key = f"{settings.url or (running.url if running else DEFAULT_URL)}/v1", settings.key
    else:
        url, key = endpoint, settings.endpoint_api_key.get_secret_value()  # our own key is not for others
    counts = asyncio.run(
        _generate(who, Endpoint(url=url, model=model, key=key, temperature=temperature), target, num, seed, concurrency)
    )
    refused = ", ".join(f"{count} {reason}" for reason, count in counts.refused.most_common())
    say(
        f"{counts.num_there} conversations in {target}; {counts.refused.total()} refused"
        + (f": {refused}" if refused else "")
    )


def _write_builtin(persona: Persona, file: Path, num: int, seed: int) -> None:
    if file.exists():
        raise Conflict(f"{file} exists already; give the name of a new file.")
    task = Identity("train", size=num, seed=seed, persona=persona)
    lines = [
        json.dumps([message.model_dump() for message in conversation.messages], ensure_ascii=False)
        for conversation in task
    ]
    write_file(file, ("\n".join(lines) + "\n").encode())
    say(f"{len(lines)} conversations, {len(set(lines))} of them distinct, in {file}")


async def _generate(persona: Persona, endpoint: Endpoint, file: Path, num: int, seed: int, concurrency: int) -> Counts:
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        shown = bar.add_task(file.name, total=num)

        def on_progress(counts: Counts) -> None:
            bar.update(shown, completed=counts.num_there, description=f"{file.name}, {counts.refused.total()} refused")
            if not console.is_terminal and counts.num_written and counts.num_written % 100 == 0:
                say(f"{counts.num_there} of {num} conversations")
                sys.stdout.flush()

        return await generate(persona, endpoint, file, num, seed=seed, concurrency=concurrency, on_progress=on_progress)
