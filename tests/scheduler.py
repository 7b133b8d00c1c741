"""Which process of `make test` runs what: whole files in their order, and those that share one costly thing together.

pytest-xdist gives each file to whichever process is free, and each process makes its session's fixtures for itself.
Its own scheduler (3.8) waits for ever after a process has died: it queues the files anew that this one had done, and
whoever is given such a file has nothing to report.
"""

from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

# They ask the stack of e2e/conftest.py, which takes half a minute of a core to train what they look at.
SHARE_THE_STACK = {f"tests/e2e/test_{name}.py" for name in ("backup", "browser", "dashboards", "demo", "prometheus")}


class Scheduler(LoadFileScheduling):
    def remove_node(self, node: WorkerController) -> str | None:
        """The test that it died in, which is not tried again here; None where it had no more to do."""
        files = self.assigned_work.pop(node)
        unfinished = [test for tests in files.values() for test, is_done in tests.items() if not is_done]
        if not unfinished:
            return None
        for file, tests in files.items():
            if rest := {test: False for test in tests if test in unfinished[1:]}:
                self.workqueue[file] = rest
        for other in self.nodes:
            self._reschedule(other)
        return unfinished[0]

    def _reschedule(self, node: WorkerController) -> None:
        """A process begins a test once it knows what comes next: files of one test are given by twos and threes."""
        if node not in self.registered_collections:  # it has just begun, and is asked again once it knows its tests
            return
        while not node.shutting_down and self._pending_of(self.assigned_work[node]) <= 2:
            super()._reschedule(node)

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "tests/e2e" if file in SHARE_THE_STACK else file
