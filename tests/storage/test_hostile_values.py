"""Values that only a database would refuse: refused before, and without harm to other requests."""

import asyncio
import math
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from seawall.errors import (
    InvalidField,
    Problem,
    SessionNotFound,
    StoreUnavailable,
    TurnLimitReached,
)
from seawall.requests import new_request
from seawall.storage.port import BackgroundJob, SessionStore
from seawall.storage.sqlite.store import SqliteStore
from seawall.storage.values import write_cursor
from seawall.turn import Principal, SessionKey, ToolMessage, Usage
from tests.storage.calls import KEY, NOW, begin, commit

ADA = Principal("acme", "ada")
NUMBERS = [1 << 63, (1 << 63) - 1, 1 << 64, 1 << 200, 10**38, 10**400, -1, 0, -(1 << 63)]
NAMES = ["\ud800", "a\0b", "\0", "é" * 900, "x" * 1_001, "\U0001f600" * 251, "#%" * 501]


async def among_others(store: SessionStore, job: Coroutine[Any, Any, Any]) -> Any:
    """The outcome of a job in one batch with others' jobs, which must all succeed."""
    others = [
        *(store.load(KEY, turns=2) for _ in range(3)),
        *(store.turns(KEY, limit=2) for _ in range(2)),
        *(store.sessions(ADA, limit=2) for _ in range(2)),
        *(
            store.commit(commit(SessionKey("acme", "bob", f"{id(job)}-{number}"), 0))
            for number in range(3)
        ),
    ]
    outcomes = await asyncio.gather(*others[:5], job, *others[5:], return_exceptions=True)
    outcome = outcomes.pop(5)
    assert [each for each in outcomes if isinstance(each, BaseException)] == []
    return outcome


@pytest.mark.parametrize("number", NUMBERS)
async def test_a_cursor_that_is_no_turn_number_is_refused(store: SessionStore, number: int) -> None:
    await store.commit(commit(KEY, 0))
    cursor = write_cursor(number) if abs(number) < 1 << 64 else _written(number)
    outcome = await among_others(store, store.turns(KEY, limit=3, cursor=cursor))
    assert isinstance(outcome, InvalidField)
    assert outcome.field == "cursor"


def _written(number: int) -> str:
    import base64  # noqa: PLC0415 - only for what msgspec does not write

    return base64.urlsafe_b64encode(str(number).encode()).decode()


@pytest.mark.parametrize("limit", [0, -1, 1 << 31, 1 << 63, 1 << 70])
async def test_a_limit_out_of_range_is_refused(store: SessionStore, limit: int) -> None:
    await store.commit(commit(KEY, 0))
    for job in (store.turns(KEY, limit=limit), store.sessions(ADA, limit=limit)):
        outcome = await among_others(store, job)
        assert isinstance(outcome, InvalidField)
        assert outcome.field == "limit"


@pytest.mark.parametrize("name", NAMES)
async def test_invalid_names_are_refused(store: SessionStore, name: str) -> None:
    await store.commit(commit(KEY, 0))
    key = SessionKey("acme", "ada", name)
    assert (await among_others(store, store.load(key, turns=1))).session is None
    read = begin(key, "", until=None)
    assert (await among_others(store, store.begin(read))).session is None
    assert isinstance(await among_others(store, store.turns(key, limit=1)), SessionNotFound)
    assert isinstance(await among_others(store, store.delete(key)), SessionNotFound)
    assert await among_others(store, store.find_job(ADA, name)) is None
    assert isinstance(await among_others(store, store.commit(commit(key, 0))), InvalidField)
    if not any("\ud800" <= each <= "\udfff" for each in name):  # JSON cannot write that
        page = await among_others(store, store.sessions(ADA, limit=3, cursor=write_cursor(name)))
        assert isinstance(page, InvalidField)


@pytest.mark.parametrize("key", NAMES)
async def test_an_invalid_idempotency_key_is_refused(store: SessionStore, key: str) -> None:
    await store.commit(commit(KEY, 0))
    keyed = commit(KEY, 1, idempotency_key=key, fingerprint="f")
    for job in (store.begin(begin(KEY, "t", idempotency_key=key)), store.commit(keyed)):
        outcome = await among_others(store, job)
        assert isinstance(outcome, InvalidField)
        assert outcome.field == "idempotency_key"


@pytest.mark.parametrize("part", ["é" * 256, "#" * 256, "\U0001f600" * 256])
async def test_the_longest_owner_names_work_or_are_refused(store: SessionStore, part: str) -> None:
    """A partition key of DynamoDB has 2,048 bytes."""
    await store.commit(commit(KEY, 0))
    key = SessionKey(part, part, "s")
    outcome = await among_others(store, store.commit(commit(key, 0)))
    if outcome is None:
        assert (await store.load(key, turns=1)).session is not None
        assert len((await store.sessions(Principal(part, part), limit=1)).sessions) == 1
    else:
        assert isinstance(outcome, InvalidField)
        assert outcome.field == "subject"
        owner = Principal(part, part)
        assert isinstance(await among_others(store, store.sessions(owner, limit=1)), Problem)


Change = Callable[[Any], Any]
_RECORDS: list[Change] = [
    lambda turn: structs.replace(
        turn, messages=(*turn.messages, ToolMessage("1", "t", "half \ud83d of it", failed=False))
    ),
    lambda turn: structs.replace(turn, messages=(*turn.messages, ToolMessage("\udfff", "t", "\0"))),
    lambda turn: structs.replace(turn, confidence=math.nan),
    lambda turn: structs.replace(turn, confidence=math.inf),
    lambda turn: structs.replace(turn, usage=Usage(-1, 1 << 70, 1)),
]


@pytest.mark.parametrize("change", _RECORDS)
async def test_every_committed_turn_can_be_read(store: SessionStore, change: Change) -> None:
    await store.commit(commit(KEY, 0))
    odd = commit(KEY, 1, state={"n": "\udc00"})
    odd = structs.replace(odd, turn=change(odd.turn))
    assert await among_others(store, store.commit(odd)) is None
    await store.commit(odd)  # done twice, it is done once
    found = await store.load(KEY, turns=5)
    assert [each.number for each in found.turns] == [1, 2]
    assert found.session is not None
    assert found.session.state == {"n": "\ufffd"}
    assert [each.number for each in (await store.turns(KEY, limit=5)).turns] == [2, 1]


async def test_a_turn_that_is_too_large_fails_alone(store: SessionStore) -> None:
    await store.commit(commit(KEY, 0))
    large = commit(KEY, 1, "x" * (33 << 20), by="large")
    assert isinstance(await among_others(store, store.commit(large)), TurnLimitReached)
    await store.commit(commit(KEY, 1))


async def test_a_page_is_bounded_in_bytes(store: SessionStore) -> None:
    for version in range(5):
        await store.commit(commit(KEY, version, "x" * (3 << 20), by=f"t{version}"))
    page = await store.turns(KEY, limit=200)
    sizes = [len(each.messages[0].text) for each in page.turns]  # type: ignore[union-attr]
    assert sum(sizes) < 16 << 20
    numbers = [each.number for each in page.turns]
    while page.cursor is not None:
        page = await store.turns(KEY, limit=200, cursor=page.cursor)
        numbers += [each.number for each in page.turns]
    assert numbers == [5, 4, 3, 2, 1]


async def test_a_background_job_that_is_too_large_fails_alone(store: SessionStore) -> None:
    await store.commit(commit(KEY, 0))
    request = new_request("é" * 300_000, session="large", background=True)
    key = SessionKey("acme", "ada", "large")
    background_job = BackgroundJob(key=key, request=request, accepted_at=NOW, ends_at=NOW + 60)
    asked = begin(key, request.id, opens=True, background_job=background_job)
    outcome = await among_others(store, store.begin(asked))
    if isinstance(outcome, Problem):
        assert isinstance(outcome, InvalidField)
        assert outcome.field == "text"
    else:
        assert await store.find_job(ADA, request.id) == background_job


async def test_a_corrupt_turn_harms_only_its_session(tmp_path: Path) -> None:
    """As a bad disk leaves it: others' reads in the same batch are answered."""
    store = SqliteStore(tmp_path / "s.db", clock=lambda: NOW)
    await store.open()
    harmed = SessionKey("acme", "eve", "s1")
    await store.commit(commit(KEY, 0))
    await store.commit(commit(harmed, 0))
    await store.write(
        lambda db: db.execute("UPDATE turns SET payload = '{' WHERE subject = 'eve'").close()
    )
    for job in (store.load(harmed, turns=2), store.begin(begin(harmed, "t"))):
        assert isinstance(await among_others(store, job), StoreUnavailable)
    assert isinstance(await among_others(store, store.turns(harmed, limit=2)), StoreUnavailable)
    await store.delete(harmed)
    await store.close()


@pytest.mark.parametrize("large", [1, 3, 5])
async def test_a_loaded_history_is_bounded_in_bytes(store: SessionStore, large: int) -> None:
    """A turn that no window can have is left out, with all before it, but not lost."""
    for version in range(5):
        text = "x" * (3 << 20) if version + 1 == large else "hello"
        await store.commit(commit(KEY, version, text, by=f"t{version}"))
    shown = list(range(large + 1, 6))
    begun = await store.begin(begin(KEY, "t", turns=20))
    for found in (await store.load(KEY, turns=20), begun):
        assert found.session is not None
        assert found.session.version == 5
        assert [each.number for each in found.turns] == shown
    page = await store.turns(KEY, limit=20)
    assert [each.number for each in page.turns] == [5, 4, 3, 2, 1]
    await store.commit(commit(KEY, 5, by="t"))
