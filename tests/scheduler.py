"""Which process of `pytest -n` runs which tests: a file in one, what starts jobs in one, and each after a crash."""

from __future__ import annotations

from typing import Any

from xdist.scheduler import LoadScopeScheduling


class JobsTogether(LoadScopeScheduling):
    """Keeps what starts jobs in one process: they fill all cores, and clusters have names.

    When a process dies, xdist's own scheduler begins with the test that it died of again, may hand out files that are
    done, waits for ever for their end, and looks for what a process that is not ready yet has collected.
    """

    def remove_node(self, node: Any) -> str | None:
        """Take a process out; return the test that it died of, which counts as done."""
        left = {scope: unit for scope, unit in self.assigned_work.pop(node).items() if not all(unit.values())}
        if not left:
            return None
        # Without this, all would count as ready while the process in its place still collects.
        self.registered_collections.pop(node, None)
        scope, unit = next(iter(left.items()))
        died_of = next(test for test, done in unit.items() if not done)
        unit[died_of] = True
        if all(unit.values()):
            del left[scope]
        self.workqueue.update(left)
        for other in self.assigned_work:
            if other in self.registered_collections:
                self._reschedule(other)
        return str(died_of)

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "jobs" if file.startswith(("tests/cluster/", "tests/mpi/")) else file
