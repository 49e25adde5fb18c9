"""Names, values and cursors of a store: checked, encoded and decoded.

Values are checked before they reach a database, which would refuse whole batches. A store must be
able to read what it wrote: a lone surrogate cannot be encoded, and a number that is not finite
would be read as null.
"""

import base64
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import UNSET, Meta, structs

from seawall.errors import InvalidField, TurnLimitReached
from seawall.storage.port import (
    AuditRecord,
    BackgroundJob,
    Commit,
    JournalWrite,
    Notification,
    Wait,
)
from seawall.turn import (
    AssistantMessage,
    Decision,
    Journal,
    Message,
    Principal,
    SessionKey,
    ToolMessage,
    TurnRecord,
)

if TYPE_CHECKING:
    from seawall.storage.facts import Memory

__all__ = [
    "MAX_LOADED_BYTES",
    "MAX_PAGE_BYTES",
    "NUMBER",
    "check_audit",
    "check_commit",
    "check_idempotency_key",
    "check_journal",
    "check_limit",
    "check_memory",
    "encode_job",
    "encode_record",
    "encode_state",
    "encode_turn",
    "is_key",
    "is_name",
    "is_owner",
    "read_cursor",
    "write_cursor",
]

MAX_LOADED_BYTES = 2 << 20
"""A larger turn is not loaded with a history, nor is any before it."""

MAX_PAGE_BYTES = 8 << 20
"""A page of a list ends with the turn that reaches this."""

NUMBER = Annotated[int, Meta(ge=1, le=1 << 53)]
"""A turn's number, as the kind of a cursor; within these bounds for every database."""

_MAX_TURN_BYTES = 32 << 20
_MAX_NAME_BYTES = 1_000  # of the 1,024 of a sort key of DynamoDB
_MAX_OWNER_BYTES = 1_024
_MAX_LIMIT = 1_000_000
_MAX_RECORD_BYTES = 380_000  # of the 400 KB of an item of DynamoDB
_MAX_NOTIFICATION_BYTES = 300_000

_encode = msgspec.json.Encoder().encode


def is_name(*names: str) -> bool:
    """Whether these can be names in a store: text of bounded length, no NUL."""
    for name in names:  # noqa: SIM110 - several times as fast as `all` with a generator
        if not _is_text(name, _MAX_NAME_BYTES):
            return False
    return True


def is_owner(owner: Principal | SessionKey) -> bool:
    """The same for the names of an owner, which identity allows to be a little longer."""
    return _is_text(owner.tenant, _MAX_OWNER_BYTES) and _is_text(owner.subject, _MAX_OWNER_BYTES)


def is_key(key: SessionKey, *names: str) -> bool:
    """The same for a session, and other names that go with it."""
    return is_owner(key) and is_name(key.session, *names)


def check_idempotency_key(key: str | None) -> None:
    """Check that a key can be a name in a store.

    Raises:
        InvalidField: it cannot.
    """
    if key is not None and not is_name(key):
        raise InvalidField(
            f"Must be text of at most {_MAX_NAME_BYTES} bytes without NUL.",
            field="idempotency_key",
        )


def check_limit(limit: int) -> None:
    """Check the size of a page.

    Raises:
        InvalidField: it is out of range.
    """
    if not 1 <= limit <= _MAX_LIMIT:
        raise InvalidField(f"Must be a number from 1 to {_MAX_LIMIT}.", field="limit")


def check_commit(commit: Commit | JournalWrite) -> int:
    """Check a commit; about how many bytes it takes, counted as characters.

    Raises:
        InvalidField: its session, or its idempotency key, cannot be a name in a store.
        TurnLimitReached: it is too large.
    """
    check_idempotency_key(commit.idempotency_key)
    if not is_key(commit.key):
        raise InvalidField(
            f"Must be text of at most {_MAX_NAME_BYTES} bytes without NUL.", field="session"
        )
    size = 0
    for message in commit.turn.messages:
        size += _size(message)
    for name, text in (commit.state or {}).items():
        size += len(name) + len(text)
    if size > _MAX_TURN_BYTES:
        raise TurnLimitReached(
            f"The turn is too large to be stored: {size} characters; "
            f"at most {_MAX_TURN_BYTES} are possible."
        )
    return size


def check_journal(write: JournalWrite) -> int:
    """Check the write of a journal; about how many bytes it takes.

    Raises:
        ValueError: it is not one: a defect.
        InvalidField: a name cannot be one in a store.
        TurnLimitReached: it is too large.
    """
    turn = write.turn
    if turn.journal is UNSET or turn.journal.revision < 1 or turn.number < 1:
        raise ValueError("the turn has no journal")
    names = (turn.id, write.lease_owner, *write.undecided, *write.ended)
    if not is_name(*names):
        raise InvalidField("This cannot be a name in a store.", field="turn")
    size = check_commit(write) + len(encode_record(turn.journal)) + _check_added(write)
    for record in write.audit:
        if record.key != write.key:
            raise ValueError("an audit record of another session")
        size += _check_record(record)
    if write.sleeps is not None:
        size += len(encode_job(write.sleeps))
    if size > _MAX_TURN_BYTES:
        raise TurnLimitReached(f"The turn is too large to be stored: {size} characters.")
    return size


def _check_added(write: JournalWrite) -> int:
    size = 0
    for wait in write.waits:
        if wait.key != write.key or not is_name(wait.id, wait.turn):
            raise InvalidField("This cannot be a name in a store.", field="waits")
        size += _check_record(wait)
    for each in write.notifications:
        if each.key != write.key or not is_name(each.id):
            raise InvalidField("This cannot be a name in a store.", field="notifications")
        size += _check_record(each, _MAX_NOTIFICATION_BYTES)
    return size


def check_audit(record: AuditRecord) -> int:
    """Check an audit record; how many bytes it takes.

    Raises:
        InvalidField: its session cannot be a name in a store.
        TurnLimitReached: it is too large.
    """
    if not is_key(record.key):
        raise InvalidField("This cannot be a name in a store.", field="session")
    return _check_record(record)


def check_memory(owner: Principal, memory: "Memory") -> None:
    """Check what is remembered of a subject.

    Raises:
        InvalidField: the owner cannot be a name in a store.
        TurnLimitReached: it is too large.
    """
    if not is_owner(owner):
        raise InvalidField("This cannot be a name in a store.", field="subject")
    _check_record(memory)


def _check_record(
    record: "Wait | AuditRecord | Notification | Memory", most: int = _MAX_RECORD_BYTES
) -> int:
    size = len(encode_record(record))
    if size > most:
        raise TurnLimitReached(
            f"A record of {size} bytes is too large to be stored; at most {most} are possible."
        )
    return size


def encode_record(
    record: "Wait | AuditRecord | Decision | Journal | Notification | Memory",
) -> bytes:
    """A record as JSON; text that cannot be stored is replaced."""
    return _encoded(record)


def encode_turn(turn: TurnRecord) -> bytes:
    """A turn as JSON that can be read again; what cannot be stored is replaced."""
    if not isfinite(turn.confidence):
        turn = structs.replace(turn, confidence=0.0)
    return _encoded(turn)


def encode_state(state: dict[str, str]) -> bytes:
    """The tools' state as JSON."""
    return _encoded(state)


def encode_job(job: BackgroundJob) -> bytes:
    """A background job as JSON."""
    return _encoded(job)


def write_cursor(position: object) -> str:
    """A position in a list as a cursor: text that clients pass back without reading it."""
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).decode()


def read_cursor(cursor: str, kind: Any) -> Any:  # noqa: ANN401 - of that kind
    """The position, of the type `kind`, that `write_cursor` was given.

    Raises:
        InvalidField: it is not such a cursor.
    """
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(cursor), type=kind)
    except (ValueError, msgspec.DecodeError) as error:
        raise InvalidField("This is not a cursor of this list.", field="cursor") from error


def _is_text(name: str, most: int) -> bool:
    if "\0" in name or len(name) > most:
        return False
    try:
        return name.isascii() or len(name.encode()) <= most
    except UnicodeEncodeError:
        return False


def _encoded(value: object) -> bytes:
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return _encode(_clean(msgspec.to_builtins(value)))


def _clean(value: Any) -> Any:  # noqa: ANN401 - plain data of any kind
    """Plain data with U+FFFD in place of each lone surrogate."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_clean(name): _clean(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(each) for each in value]
    return value


def _size(message: Message) -> int:
    if type(message) is AssistantMessage:
        return len(message.text) + sum(
            len(each.name) + len(each.arguments) for each in message.tool_calls
        )
    return len(message.content) if type(message) is ToolMessage else len(message.text)  # type: ignore[union-attr]
