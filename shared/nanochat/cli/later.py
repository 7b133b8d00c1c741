"""Commands whose rooms are not built yet: each says so in one sentence and exits with status 2."""

from collections.abc import Callable

import typer

from nanochat.cli.terminal import error_console

NOT_YET = {
    "report": "Reports are not built yet; a job's figures are in: nanochat jobs show JOB.",
}


def not_yet(sentence: str) -> Callable[[], None]:
    """A command that says so. Its arguments are not looked at."""

    def command() -> None:
        error_console.print(sentence, markup=False, soft_wrap=True)
        raise typer.Exit(2)

    command.__doc__ = f"(not yet) {sentence}"
    return command
