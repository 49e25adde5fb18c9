"""Stores with sessions."""

import asyncio
from pathlib import Path

from seawall.storage.port import Archive, Commit, SessionStore
from seawall.storage.sqlite.store import SqliteStore
from seawall.turn import (
    AssistantMessage,
    SessionKey,
    ToolCall,
    ToolMessage,
    TurnRecord,
    Usage,
    UserMessage,
)

NEVER = 4_000_000_000.0


def turn(key: SessionKey, number: int, text: str) -> TurnRecord:
    return TurnRecord(
        id=f"trn_{key.session}.{number}",
        number=number,
        created_at=1_700_000_000.5,
        agent="concierge",
        intent="order_status",
        messages=(
            UserMessage(text),
            AssistantMessage("", (ToolCall("c1", "get_order", '{"id":"#W1"}'),)),
            ToolMessage("c1", "get_order", '{"state":"sent"}'),
            AssistantMessage("It is on its way. \U0001f69a"),
        ),
        usage=Usage(30, 12, 2),
    )


async def fill(store: SessionStore, keys: list[SessionKey], turns: int, text: str) -> None:
    """`turns` turns in each session, the first of them under an idempotency key."""
    for version in range(turns):
        commits = [
            Commit(
                key=key,
                expected_version=version,
                turn=turn(key, version + 1, text),
                agent="concierge",
                state={"customer": "c-17"},
                expires_at=NEVER,
                idempotency_key=f"key-{key.session}" if version == 0 else None,
                fingerprint="f" if version == 0 else None,
            )
            for key in keys
        ]
        await asyncio.gather(*map(store.commit, commits))


def fill_sqlite(
    path: Path, keys: list[SessionKey], *, turns: int = 2, text: str = "Where is it?"
) -> None:
    async def whole() -> None:
        store = SqliteStore(path)
        await store.open()
        await fill(store, keys, turns, text)
        await store.close()

    asyncio.run(whole())


async def everything(store: SessionStore) -> dict[SessionKey, Archive]:
    """All of a store; each session must come once."""
    found: dict[SessionKey, Archive] = {}
    cursor = None
    while True:
        page = await store.archives(limit=200, cursor=cursor)
        for archive in page.archives:
            assert archive.session.key not in found
            found[archive.session.key] = archive
        cursor = page.cursor
        if cursor is None:
            return found


def everything_in_sqlite(path: Path) -> dict[SessionKey, Archive]:
    async def whole() -> dict[SessionKey, Archive]:
        store = SqliteStore(path)
        await store.open()
        found = await everything(store)
        await store.close()
        return found

    return asyncio.run(whole())
