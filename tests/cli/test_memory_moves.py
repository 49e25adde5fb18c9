"""Facts are exported with the sessions of their subject, erased and migrated with them."""

import asyncio
import json
import time
from functools import partial
from pathlib import Path

import pytest

from seawall.cli.main import main
from seawall.settings import MemorySettings
from seawall.storage.facts import Memory
from seawall.storage.memory import Change, change_memory, remember
from seawall.storage.sqlite.store import SqliteStore
from seawall.turn import Principal, SessionKey
from tests.cli.stores import fill_sqlite

OWNERS = [Principal(f"t{number % 2}", f"u{number}") for number in range(5)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seawall.toml").write_text('[sessions]\npath = "a.db"\n')
    fill_sqlite(tmp_path / "a.db", [SessionKey("t0", "u0", "s0")])
    remember_in(tmp_path / "a.db", OWNERS)
    return tmp_path


def remember_in(path: Path, owners: list[Principal], text: str = "red") -> None:
    async def whole() -> None:
        store = SqliteStore(path)
        await store.open()
        for owner in owners:
            change = Change(at=4e9, by="agent", key=f"{text}-{owner.subject}")
            said = partial(
                remember,
                change=change,
                settings=MemorySettings(),
                key="color",
                text=text,
                said=True,
            )
            await change_memory(store.facts(), owner, said)
        await store.close()

    asyncio.run(whole())


def read_from(path: Path) -> dict[Principal, Memory]:
    async def whole() -> dict[Principal, Memory]:
        store = SqliteStore(path)
        await store.open()
        found = {owner: await store.facts().read(owner) for owner in OWNERS}
        await store.close()
        return found

    return asyncio.run(whole())


def test_facts_are_migrated_and_verified(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    migrate = ["sessions", "migrate", "sqlite:a.db", "sqlite:b.db", "--batch", "2"]
    remember_in(folder / "b.db", OWNERS[:1], "kept")
    assert main([*migrate, "--json", "--verify"]) == 1  # one of the target was not changed
    figures = json.loads(capsys.readouterr().out)
    assert (figures["memories"], figures["moved"]) == (4, 1)
    verification = figures["verification"]
    assert (verification["memories"], verification["lost"]) == (4, 1)
    assert verification["examples"] == ["facts: t0 / u0"]
    before, after = read_from(folder / "a.db"), read_from(folder / "b.db")
    assert {owner: before[owner] for owner in OWNERS[1:]} == {
        owner: after[owner] for owner in OWNERS[1:]
    }
    assert after[OWNERS[0]].facts[0].text == "kept"
    remember_in(folder / "b.db", OWNERS[:1], "newer")  # it went on, which is no fault
    assert main([*migrate, "--verify"]) == 0
    assert "5 subjects with their facts" in capsys.readouterr().out


def test_facts_are_exported_and_erased(
    folder: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    of_owner = ["--tenant", "t0", "--subject", "u0"]
    assert main(["sessions", "export", *of_owner]) == 0
    out, err = capsysbinary.readouterr()
    session, facts = map(json.loads, out.splitlines())
    assert session["session"]["key"]["session"] == "s0"
    assert [(each["key"], each["text"]) for each in facts["facts"]] == [("color", "red")]
    assert b"1 session with 2 turns, 1 fact" in err
    assert main(["sessions", "export", "s0", *of_owner]) == 0
    assert len(capsysbinary.readouterr().out.splitlines()) == 1
    assert main(["sessions", "erase", *of_owner, "--yes"]) == 0
    found = read_from(folder / "a.db")
    assert found[OWNERS[0]] == Memory()
    assert all(found[owner].facts for owner in OWNERS[1:])


def test_facts_that_the_stores_may_delete_are_not_missing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def expired() -> None:
        store = SqliteStore(folder / "a.db")
        await store.open()
        memory = Memory(revision=1, applied=("k",), ends_at=time.time() - 1)
        assert await store.facts().write(Principal("t0", "gone"), memory, expected=0)
        await store.close()

    asyncio.run(expired())
    assert main(["sessions", "migrate", "sqlite:a.db", "sqlite:b.db", "--verify", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["memories"], figures["verification"]["memories"]) == (5, 5)
