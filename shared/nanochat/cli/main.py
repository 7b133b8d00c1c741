"""The `nanochat` command: its groups, and how an error ends it. Each group is a file of its own."""

import sys
from collections.abc import Callable

import typer
from pydantic import ValidationError

from nanochat.cli import (
    backup,
    bench,
    chat,
    data,
    demo,
    exchange,
    harness,
    jobs,
    models,
    report,
    scaling,
    tokenizer,
    up,
)
from nanochat.cli.terminal import error_console
from nanochat.errors import NanochatError

app = typer.Typer(
    name="nanochat",
    help="Train a small chat model, serve it, and talk to it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(up.up)
app.command()(up.down)
app.command()(demo.demo)
app.command()(chat.chat)
app.command()(jobs.train)
app.command("eval")(jobs.evaluate)
app.add_typer(jobs.app, name="jobs")
app.add_typer(models.app, name="models")
app.add_typer(data.app, name="data")
app.add_typer(tokenizer.app, name="tokenizer")
app.command()(exchange.export)
app.command("import")(exchange.import_)
app.command()(scaling.miniseries)
app.command("scaling-laws")(scaling.scaling_laws)
app.command()(backup.backup)
app.command()(backup.restore)
app.add_typer(bench.app, name="bench")
app.command()(report.report)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})(
    harness.harness
)


def main() -> None:
    guarded(app)


def guarded(command: Callable[[], object]) -> None:
    """Status 0: done; 1: it failed, with a sentence on standard error; 2: it was asked for wrongly."""
    try:
        command()
    except NanochatError as exc:
        error_console.print(f"nanochat: {exc.message}", style="red", markup=False, soft_wrap=True)
        sys.exit(1)
    except OSError as exc:  # a disk that is full, a folder that may not be written
        where = f"{exc.filename}: " if exc.filename else ""
        error_console.print(f"nanochat: {where}{exc.strerror or exc}", style="red", markup=False, soft_wrap=True)
        sys.exit(1)
    except ValidationError as exc:
        for problem in exc.errors(include_url=False):
            name = "_".join(str(part) for part in problem["loc"]).upper()
            error_console.print(f"NANOCHAT_{name}: {problem['msg']}", style="red", markup=False, soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
