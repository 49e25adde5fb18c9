"""The chain of a session's audit records: each has the hash of the one before. Pure."""

import hashlib
from collections.abc import Sequence

import msgspec
from msgspec import structs

from seawall.storage.port import AuditRecord
from seawall.storage.values import encode_record

__all__ = ["chained", "decode_audit", "missing_before", "verify"]

_encode = msgspec.json.Encoder(order="sorted").encode
decode_audit = msgspec.json.Decoder(AuditRecord).decode


def chained(record: AuditRecord, previous: AuditRecord | None) -> AuditRecord:
    """The record as the next of a chain; text that cannot be stored is replaced.

    Args:
        record: To be appended.
        previous: The last of the chain; None for the first.
    """
    record = decode_audit(encode_record(record))
    number, before = (previous.number + 1, previous.hash) if previous else (1, "")
    record = structs.replace(record, number=number, previous=before)
    return structs.replace(record, hash=_hash(record))


def verify(records: Sequence[AuditRecord]) -> str | None:
    """The first fault of a session's chain, in its order; None if there is none.

    A chain whose beginning has expired has no fault: see `missing_before`.
    """
    last: AuditRecord | None = None
    for record in records:
        if record.hash != _hash(record):
            return f"record {record.number} was changed"
        if last is None:
            if (record.number == 1) != (record.previous == ""):
                return f"record {record.number} is not the beginning of a chain"
        elif record.key != last.key:
            return f"record {record.number} belongs to another session"
        elif record.number != last.number + 1:
            return f"record {record.number} follows record {last.number}"
        elif record.previous != last.hash:
            return f"record {record.number} does not continue record {last.number}"
        last = record
    return None


def missing_before(records: Sequence[AuditRecord]) -> int:
    """How many records at the beginning of the chain have expired."""
    return records[0].number - 1 if records else 0


def _hash(record: AuditRecord) -> str:
    content = msgspec.to_builtins(record)
    content.pop("hash", None)
    return hashlib.sha256(_encode(content)).hexdigest()
