"""Which process of `make test` runs what: whole files in their order, and those that share one costly thing together.

pytest-xdist gives each file to whichever process is free, and each process makes its session's fixtures for itself.
"""

from xdist.scheduler import LoadFileScheduling

# They ask the stack of e2e/conftest.py, which takes half a minute of a core to train what they look at.
SHARE_THE_STACK = {f"tests/e2e/test_{name}.py" for name in ("backup", "browser", "dashboards", "demo", "prometheus")}


class Scheduler(LoadFileScheduling):
    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "tests/e2e" if file in SHARE_THE_STACK else file
