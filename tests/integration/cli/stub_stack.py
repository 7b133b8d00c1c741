"""A stack of stand-ins in the foreground, run as `nanochat up` runs the real one: a process that tests can kill.

    python stub_stack.py STOPPED_FILE GRANDCHILD_FILE [WORKER_OPTION...]

Redis is real. The worker's stand-in starts a process in a session of its own, as torchrun's are.
"""

import asyncio
import sys
from pathlib import Path

from nanochat.cli.main import guarded
from nanochat.cli.service import ServiceSpec
from nanochat.cli.settings import StackSettings
from nanochat.cli.stack import Stack, service_specs
from nanochat.cli.up import run_with_stack

STUB = str(Path(__file__).with_name("stub_service.py"))


def stub_specs(settings: StackSettings, ports: dict[str, int]) -> list[ServiceSpec]:
    """The real specs with every Python service replaced."""
    stopped, grandchild, *options = sys.argv[1:]
    specs = []
    for spec in service_specs(settings, ports):
        if spec.health:
            command = [sys.executable, STUB, spec.name, str(spec.port), stopped]
            if spec.name == "worker":
                command += ["--grandchild", grandchild, *options]
            spec = ServiceSpec(name=spec.name, command=command, port=spec.port, health=spec.health, stop_s=2.0)
        specs.append(spec)
    return specs


async def wait_for_signal(stack: Stack) -> int:
    print(f"up at {stack.url}", flush=True)
    await asyncio.Event().wait()
    return 0


if __name__ == "__main__":
    guarded(lambda: sys.exit(run_with_stack(StackSettings.load(), wait_for_signal, stub_specs)))
