"""Audit chains: each record of a session has the hash of the one before. Pure functions."""

import hashlib
from collections.abc import Iterable

import msgspec
from msgspec import structs

from seawall.storage.port import AuditRecord

__all__ = ["chained", "verify"]

_encode = msgspec.json.Encoder(order="sorted").encode


def chained(record: AuditRecord, previous: AuditRecord | None) -> AuditRecord:
    """The record as the next of its chain.

    Args:
        record: Without number and hashes.
        previous: The last of the chain; None if there is none.
    """
    numbered = structs.replace(
        record,
        number=previous.number + 1 if previous is not None else 1,
        previous=previous.hash if previous is not None else "",
        hash="",
    )
    return structs.replace(numbered, hash=_digest(numbered))


def verify(records: Iterable[AuditRecord]) -> str | None:
    """The first fault of a chain; None if there is none.

    A chain may begin with any number: older records expire.

    Args:
        records: Those of one session, in order.
    """
    last: AuditRecord | None = None
    for record in records:
        place = f"record {record.number} of session {record.key.session}"
        if record.hash != _digest(structs.replace(record, hash="")):
            return f"{place} was changed"
        if last is None and record.number == 1 and record.previous:
            return f"{place} is not the first"
        if last is not None and record.number != last.number + 1:
            return f"{place}: the record before it is missing"
        if last is not None and record.previous != last.hash:
            return f"{place} does not follow the record before it"
        last = record
    return None


def _digest(record: AuditRecord) -> str:
    return hashlib.sha256(_encode(record)).hexdigest()
