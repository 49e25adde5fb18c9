"""Groups of tests that share an expensive fixture: one worker of pytest-xdist runs all of a group.

Workers write which test is in which group, and the scheduler of the process that controls them
reads it. pytest-xdist's own marks do not reach its scheduler: they rename tests in a way that
pytest 9.2 no longer knows.
"""

import json
import os
from collections.abc import Iterable
from inspect import isgeneratorfunction
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.once import RUN_FOLDER

__all__ = ["GroupScheduling", "group_of", "write_groups"]

_FILE = "groups.json"


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Gives each group to one worker, the largest first, and every other test to any worker."""

    def schedule(self) -> None:
        if not self.collection_is_completed:
            return
        path = Path(os.environ[RUN_FOLDER]) / _FILE
        self._groups: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
        if lost := sorted(self._groups.keys() - set(self._collected())):
            raise RuntimeError(f"groups have tests that the scheduler does not know: {lost[:3]}")
        self._indices = {nodeid: index for index, nodeid in enumerate(self._collected())}
        super().schedule()

    def mark_test_complete(self, node: Any, item_index: int, duration: float = 0) -> None:
        """Forget a group that is done: xdist counts what is left among all that a worker ever got.

        With that, and a search among all tests for each one, 8,000 took 2.3 s of CPU time.
        """
        del duration
        nodeid = self.registered_collections[node][item_index]
        groups = self.assigned_work[node]
        group = groups[self._split_scope(nodeid)]
        group[nodeid] = True
        if all(group.values()):
            del groups[self._split_scope(nodeid)]
        self._reschedule(node)

    def _assign_work_unit(self, node: Any) -> None:
        name, group = self.workqueue.popitem(last=False)
        self.assigned_work[node][name] = group
        node.send_runtest_some([self._indices[nodeid] for nodeid in group if not group[nodeid]])

    def _collected(self) -> list[str]:
        """The tests: every worker has collected the same."""
        found: list[str] = next(iter(self.registered_collections.values()))
        return found

    def _split_scope(self, nodeid: str) -> str:
        return self._groups.get(nodeid, nodeid)


def write_groups(items: Iterable[pytest.Item]) -> None:
    """Write the groups of all tests; every worker has the same and writes the same."""
    path = Path(os.environ[RUN_FOLDER]) / _FILE
    part = path.with_suffix(f".{os.getpid()}")
    found = {item.nodeid: group for item in items if (group := group_of(item))}
    part.write_text(json.dumps(found), encoding="utf-8")
    part.replace(path)


def group_of(item: pytest.Item) -> str:
    """The name of the group that a test belongs to, because they share a fixture; "" without."""
    for name, definitions in _fixtures(item):
        definition = definitions[-1]
        module_wide = definition.scope in ("module", "package")
        server = definition.scope == "session" and isgeneratorfunction(definition.func)
        if (module_wide or server) and definition.baseid not in ("", "tests"):
            return f"{definition.baseid}:{name}"
    return ""


def _fixtures(item: pytest.Item) -> list[tuple[str, Any]]:
    info = getattr(item, "_fixtureinfo", None)
    return sorted(info.name2fixturedefs.items()) if info is not None else []
