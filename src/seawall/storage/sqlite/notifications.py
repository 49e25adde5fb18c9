"""Notifications in SQLite: stored with a journal, claimed for each delivery, deleted."""

import sqlite3
from collections.abc import Iterable

import msgspec
from msgspec import structs

from seawall.storage.port import Notification
from seawall.storage.values import encode_record

__all__ = [
    "claim_notification",
    "due_notifications",
    "end_notification",
    "write_notifications",
]

_NAMED = "(tenant, id) = (?, ?)"

_decode = msgspec.json.Decoder(Notification).decode


def write_notifications(connection: sqlite3.Connection, added: Iterable[Notification]) -> None:
    """Store notifications, in the caller's transaction."""
    for each in added:
        key = each.key
        record = encode_record(structs.replace(each, tries=1, due=0.0)).decode()
        connection.execute(
            "INSERT OR REPLACE INTO notifications VALUES (?, ?, ?, ?, ?, ?, ?)",
            (key.tenant, each.id, key.subject, key.session, record, each.tries, each.due),
        )


def due_notifications(
    connection: sqlite3.Connection, limit: int, now: float
) -> tuple[Notification, ...]:
    """See `SessionStore.due_notifications`."""
    rows = connection.execute(
        "SELECT record, tries, due FROM notifications WHERE due <= ? ORDER BY due LIMIT ?",
        (now, limit),
    )
    return tuple(
        structs.replace(_decode(record), tries=tries, due=due) for record, tries, due in rows
    )


def claim_notification(
    connection: sqlite3.Connection, notification: Notification, due: float, now: float
) -> Notification | None:
    """See `SessionStore.claim_notification`."""
    tries = notification.tries
    claimed = connection.execute(
        f"UPDATE notifications SET tries = ?, due = ? WHERE {_NAMED} AND tries = ? AND due <= ?",  # noqa: S608
        (tries + 1, due, notification.key.tenant, notification.id, tries, now),
    ).rowcount
    return structs.replace(notification, tries=tries + 1, due=due) if claimed else None


def end_notification(connection: sqlite3.Connection, notification: Notification) -> None:
    """See `SessionStore.end_notification`."""
    connection.execute(
        f"DELETE FROM notifications WHERE {_NAMED}",  # noqa: S608
        (notification.key.tenant, notification.id),
    )
