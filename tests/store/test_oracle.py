"""Every retail task's actions on the store's tools: done, refused and changed as it must be."""

import asyncio
import shutil
from pathlib import Path

import msgspec
import pytest
from examples.store.catalogue import Catalogue
from examples.store.tools import open_store

from seawall import Principal, ToolContext
from tests.store.retail import FOLDER, check_changes, documents, load_tasks


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    load_tasks()
    path = tmp_path_factory.mktemp("retail") / "retail.db"
    catalogue = Catalogue(path)
    catalogue.fill(FOLDER / "db.json")
    catalogue.close()
    return path


async def test_all_74_tasks(filled: Path, tmp_path: Path) -> None:
    original = documents(filled)
    tasks = load_tasks()
    assert len(tasks) == 74
    for task in tasks:
        path = tmp_path / f"{task.id}.db"
        shutil.copy(filled, path)
        toolset = open_store(database=str(path), as_reference=True)
        tools = {each.name: each for each in toolset.tools}
        state: dict[str, str] = {}
        for position, (name, arguments, succeeds) in enumerate(task.actions):
            context = ToolContext(
                principal=Principal("store", task.customer or "guest"),
                session="s",
                turn="t",
                agent="a",
                call=str(position),
                idempotency_key=str(position),
                deadline=asyncio.get_running_loop().time() + 5.0,
                state=state,
            )
            outcome = await tools[name].call(msgspec.json.encode(arguments).decode(), context)
            assert outcome.failed is not succeeds, (task.id, name, arguments, outcome.content)
        toolset.close()
        check_changes(task, original, documents(path))
