"""A sandbox, where this machine can confine programs."""

import os
import subprocess

import pytest

from nanochat.errors import Unavailable
from nanochat.tools.bubblewrap import find_parts
from nanochat.tools.sandbox import Limits, Sandbox, probe

# Ample for what it does, small enough that running into a limit takes no time.
LIMITS = Limits(wall_s=20.0, cpu_s=1, memory_bytes=128 * 2**20, disk_bytes=4 * 2**20, output_bytes=20_000)


def has_namespaces() -> bool:
    """Whether bubblewrap works here at all, so that it is our own mistake if the sandbox does not."""
    try:
        parts = find_parts()
    except Unavailable:
        return False
    nobody = 65534 if os.geteuid() == 0 else None
    command = [str(parts.bwrap), "--unshare-user", "--unshare-pid", "--unshare-net", "--ro-bind", "/", "/", "true"]
    return subprocess.run(command, user=nobody, group=nobody, cwd="/", capture_output=True).returncode == 0


@pytest.fixture(scope="session")
def sandbox() -> Sandbox:
    reason = probe()
    if reason is not None:
        assert not has_namespaces(), reason
        pytest.skip(reason)
    return Sandbox(LIMITS)
