"""Becomes one process of the embedded stack: ties its life to the stack's, then replaces itself by the command.

    python -m nanochat.cli.child PARENT_PID NAME=VALUE... -- COMMAND...

Standard library only: this is the whole life of the interpreter before `exec`. Stopping in order is stack.py's work;
this is for the day when the stack itself is killed.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(arguments: list[str]) -> None:
    """Never returns. Elsewhere than on Linux the next `up` ends what a killed stack left (state.py)."""
    split = arguments.index("--")
    parent, *variables = arguments[:split]
    command = arguments[split + 1 :]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # the parent died before the line above
        sys.exit(1)
    for variable in variables:
        name, _, value = variable.partition("=")
        os.environ[name] = value
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
