"""A sandbox, where this machine can confine programs."""

import pytest

from nanochat.tools.sandbox import Limits, Sandbox, probe

# Ample for what it does, small enough that running into a limit takes no time.
LIMITS = Limits(wall_s=20.0, cpu_s=1, memory_bytes=128 * 2**20, disk_bytes=4 * 2**20, output_bytes=20_000)


@pytest.fixture(scope="session")
def sandbox() -> Sandbox:
    reason = probe()
    if reason is not None:
        pytest.skip(reason)
    return Sandbox(LIMITS)
