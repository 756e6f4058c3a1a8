"""Deals whole files of tests to the processes of pytest-xdist, and goes on when one of them is killed.

A system that is out of memory kills a process. xdist then starts another one, but its scheduler for scopes (3.8.0)
deals the test that was running again, so that the new process dies too. It deals to a process that has not said yet
which tests it has (KeyError), and to one that is dead already (OSError): INTERNALERRORs, which hide all failures so
far (pytest-dev/pytest-xdist, issues 714, 1189, 1323 and 1362). Here the killed test has failed, and the others of its
file run elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController


class FileScheduling(LoadScopeScheduling):
    """Deals whole groups of tests.

    Parameters
    ----------
    config, log
        As xdist gives them.
    group_of : callable
        From the name of a test to that of its group.
    """

    def __init__(self, config: pytest.Config, log: Any, group_of: Callable[[str], str]) -> None:
        super().__init__(config, log)
        self._group_of = group_of

    def _split_scope(self, nodeid: str) -> str:
        return self._group_of(nodeid)

    def remove_node(self, node: WorkerController) -> str | None:
        """Takes back what a process has not finished; returns the test at which it was killed, None if at none."""
        workload = self.assigned_work[node]
        killed = next((test for group in workload.values() for test, done in group.items() if not done), None)
        for name, group in list(workload.items()):
            if killed in group:
                group[killed] = True
            if all(group.values()):
                del workload[name]
        if self.collection is None:
            self.registered_collections.pop(node, None)  # the start waits for the process in its place
        super().remove_node(node)
        return killed

    def add_node_collection(self, node: WorkerController, collection: Sequence[str]) -> None:
        """Notes which tests a process has; one with other tests than the rest is ended."""
        if node not in self.assigned_work:  # it was ended before it had said so
            return
        super().add_node_collection(node, collection)
        if node not in self.registered_collections:
            node.shutdown()

    def _reschedule(self, node: WorkerController) -> None:
        if node in self.registered_collections:  # else it is dealt tests once it has said which it has
            super()._reschedule(node)

    def _assign_work_unit(self, node: WorkerController) -> None:
        name, group = next(iter(self.workqueue.items()))
        try:
            super()._assign_work_unit(node)
        except OSError:  # it is dead, which its end will say; a process in its place is dealt these
            del self.assigned_work[node][name]
            self.workqueue[name] = group
            self.workqueue.move_to_end(name, last=False)
