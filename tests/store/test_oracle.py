"""Actions of every retail task on the store's tools: done, refused and changed as expected."""

import asyncio
import shutil
from pathlib import Path

import msgspec
import pytest
from examples.store.catalogue import Catalogue
from examples.store.tools import open_store

from seawall import Principal, ToolContext
from tests.store.retail import FOLDER, load_tasks, same, without_nulls


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    load_tasks()
    path = tmp_path_factory.mktemp("retail") / "retail.db"
    catalogue = Catalogue(path)
    catalogue.fill(FOLDER / "db.json")
    catalogue.close()
    return path


async def test_all_74_tasks(filled: Path, tmp_path: Path) -> None:
    original = msgspec.to_builtins(_export(filled))
    tasks = load_tasks()
    assert len(tasks) == 74
    for task in tasks:
        path = tmp_path / f"{task.id}.db"
        shutil.copy(filled, path)
        toolset = open_store(database=str(path), as_reference=True)
        tools = {each.name: each for each in toolset.tools}
        state: dict[str, str] = {}

        async def play(task=task, tools=tools, state=state) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
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

        await play()
        toolset.close()
        final = msgspec.to_builtins(_export(path))
        for kind, before in original.items():
            wanted = task.changed.get(kind, {})
            for key, record in final[kind].items():
                expected = (
                    without_nulls(wanted[key]) if key in wanted else without_nulls(before[key])
                )
                assert same(without_nulls(record), expected), (task.id, kind, key)


def _export(path: Path) -> object:
    catalogue = Catalogue(path)
    try:
        return catalogue.export()
    finally:
        catalogue.close()
