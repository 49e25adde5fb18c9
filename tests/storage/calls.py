"""Calls of a store as tests make them, and a clock that tests move."""

from typing import Any

from seawall.storage.port import Begin, Commit, SessionStore, Snapshot
from seawall.turn import AssistantMessage, SessionKey, TurnRecord, Usage, UserMessage

NOW = 4_000_000_000.0  # so far off that no store's own expiry interferes
KEY = SessionKey("acme", "ada", "s1")


class Clock:
    """Time that tests move."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def commit(
    key: SessionKey, version: int, text: str = "hello", by: str = "", **changes: Any
) -> Commit:
    turn = TurnRecord(
        id=by or f"t{version + 1}-{text}",
        number=version + 1,
        created_at=NOW,
        agent="a",
        intent=None,
        messages=(UserMessage(text), AssistantMessage(f"re: {text}")),
        usage=Usage(3, 4),
    )
    values: dict[str, Any] = {
        "key": key,
        "expected_version": version,
        "turn": turn,
        "agent": "a",
        "state": {"n": str(version)},
        "expires_at": NOW + 1_000,
    }
    return Commit(**(values | changes))


def begin(key: SessionKey, turn: str, **changes: Any) -> Begin:
    values: dict[str, Any] = {"key": key, "turn": turn, "turns": 5, "until": NOW + 10}
    if "idempotency_key" in changes:
        values["fingerprint"] = "f"
    return Begin(**(values | changes))


async def look(store: SessionStore, key: SessionKey, turns: int, idempotency_key: str) -> Snapshot:
    """What a turn would find, without a lease."""
    wanted = begin(key, "reader", until=None, turns=turns, idempotency_key=idempotency_key)
    return await store.begin(wanted)
