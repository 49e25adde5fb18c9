"""Every retail task's actions on the store's tools: done, refused and changed as it must be.

The same in all forms: functions in the process, an OpenAPI service, an MCP server. In `make test`
each task goes through one of the two that are elsewhere, in `make test-long` through both.
"""

import asyncio
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest
from examples.store.catalogue import Catalogue
from examples.store.service import StoreService
from examples.store.tools import open_store
from msgspec import structs

from seawall import Principal, Tool, ToolContext
from tests.properties import rotated
from tests.store.elsewhere import Form, tools_elsewhere
from tests.store.retail import FOLDER, Task, check_changes, documents, load_tasks

FORMS: tuple[Form, ...] = ("openapi", "mcp")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    load_tasks()
    path = tmp_path_factory.mktemp("retail") / "retail.db"
    catalogue = Catalogue(path)
    catalogue.fill(FOLDER / "db.json")
    catalogue.close()
    return path


async def test_all_74_tasks(filled: Path, tmp_path: Path) -> None:
    original, tasks = documents(filled), load_tasks()
    assert len(tasks) == 74
    for task, path in _copies(tasks, filled, tmp_path):
        toolset = open_store(database=str(path), as_reference=True)
        tools = {each.name: each for each in toolset.tools}
        await _perform(task, tools, _context(task))
        toolset.close()
        check_changes(task, original, documents(path))


@pytest.mark.parametrize(("form", "part"), rotated(FORMS))
async def test_tasks_elsewhere(filled: Path, tmp_path: Path, form: Form, part: int) -> None:
    original, tasks = documents(filled), load_tasks()[part :: len(FORMS)]
    toolset = open_store(database=str(tmp_path / "first.db"), as_reference=True)
    service = StoreService(toolset)
    async with tools_elsewhere(form, service, tmp_path) as tools:
        toolset.close()
        for task, path in _copies(tasks, filled, tmp_path):
            toolset = open_store(database=str(path), as_reference=True)
            service.tools = {each.name: each for each in toolset.tools}
            if task.customer is not None:  # signed in
                service.state(task.id)["customer"] = task.customer
            await _perform(task, tools, _context(task))
            toolset.close()
            check_changes(task, original, documents(path))


def _copies(tasks: Sequence[Task], filled: Path, folder: Path) -> Iterator[tuple[Task, Path]]:
    for task in tasks:
        path = folder / f"{task.id}.db"
        shutil.copy(filled, path)
        yield task, path


def _context(task: Task) -> ToolContext:
    return ToolContext(
        principal=Principal("store", task.customer or "guest"),
        session=task.id,
        turn="t",
        agent="a",
        call="",
        idempotency_key="",
        deadline=0.0,
        state={},
    )


async def _perform(task: Task, tools: Mapping[str, Tool], context: ToolContext) -> None:
    for position, (name, arguments, succeeds) in enumerate(task.actions):
        now = asyncio.get_running_loop().time()
        own = structs.replace(
            context, call=str(position), idempotency_key=str(position), deadline=now + 20.0
        )
        outcome = await tools[name].call(msgspec.json.encode(arguments).decode(), own)
        assert outcome.failed is not succeeds, (task.id, name, arguments, outcome.content)
