"""`nanochat up` and `nanochat down`: the embedded stack alone, in the foreground or detached."""

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import typer

from nanochat.cli.settings import StackSettings
from nanochat.cli.stack import Specs, Stack, end_leftovers, service_specs
from nanochat.cli.state import StackState
from nanochat.cli.terminal import say
from nanochat.errors import DeadlineExceeded, Unavailable
from nanochat.files import require_writable

START_DEADLINE_S = 180.0
STOP_DEADLINE_S = 100.0
POLL_S = 0.1


def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once it runs; stop it with down.")] = False,
) -> None:
    """Start Redis, trainer, worker, inference and gateway on this machine."""
    settings = StackSettings.load()
    if detach:
        _up_detached(settings.home_dir)
        return
    raise typer.Exit(run_with_stack(settings, _serve))


def down() -> None:
    """Stop the stack that runs in $NANOCHAT_HOME."""
    home = StackSettings.load().home_dir
    state = StackState.read(home)
    process = state.stack.find() if state else None
    if process is None:
        asyncio.run(end_leftovers(home))
        say(f"no stack runs in {home}")
        return
    process.terminate()
    deadline = time.monotonic() + STOP_DEADLINE_S
    while state and state.stack.find():
        if time.monotonic() > deadline:
            process.kill()
            asyncio.run(end_leftovers(home))
            raise DeadlineExceeded(f"the stack did not stop within {STOP_DEADLINE_S:.0f} s; it was killed.")
        time.sleep(POLL_S)
    say("stopped")


Work = Callable[[Stack], Awaitable[int]]


def run_with_stack(settings: StackSettings, work: Work, specs: Specs = service_specs) -> int:
    """Run `work` beside a supervised stack; the exit status is its own, or 0 when a signal ends it.

    The first SIGINT, SIGTERM or SIGHUP cancels `work` and stops the stack in order; the second kills.
    """
    return asyncio.run(_run_until_signal(Stack(settings, say, specs), work))


async def _run_until_signal(stack: Stack, work: Work) -> int:
    body = asyncio.ensure_future(_beside(stack, work))
    num_signals = 0

    def on_signal() -> None:
        nonlocal num_signals
        num_signals += 1
        if num_signals == 1 and not stack.is_stopping:  # cancelling what stops by itself would leave processes
            say("stopping (again: at once)")
            body.cancel()
        else:
            stack.hurry()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    try:
        return await body
    except asyncio.CancelledError:
        return 0


async def _beside(stack: Stack, work: Work) -> int:
    async with stack:
        supervision = asyncio.ensure_future(stack.supervise())
        working = asyncio.ensure_future(work(stack))
        try:
            # Supervision ends only by an error of its own, which must not pass unseen.
            await asyncio.wait({supervision, working}, return_when=asyncio.FIRST_COMPLETED)
            if supervision.done():
                await supervision
            return await working
        finally:
            for task in (supervision, working):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task


async def _serve(stack: Stack) -> int:
    say(f"nanochat is up at {stack.url} - stop with Ctrl-C")
    await asyncio.Event().wait()
    return 0


def _up_detached(home: Path) -> None:
    """Raises Unavailable with the end of the log when it does not come up."""
    running = StackState.running(home)
    if running and running.is_ready:
        say(f"nanochat is up already at {running.url} - stop with: nanochat down")
        return
    require_writable(home)
    log_file = home / "logs" / "stack.log"
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "nanochat.cli.main", "up"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline:
        state = StackState.running(home)
        if state and state.is_ready and state.stack.pid == process.pid:
            say(f"nanochat is up at {state.url} - stop with: nanochat down")
            return
        if process.poll() is not None:
            raise Unavailable(f"the stack did not start.\n{log_file.read_text(errors='replace').strip()}")
        time.sleep(POLL_S)
    process.terminate()
    raise DeadlineExceeded(f"the stack was not up within {START_DEADLINE_S:.0f} s; see {log_file}.")
