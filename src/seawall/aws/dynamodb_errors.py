"""What DynamoDB refuses, and what may have become of the write.

::

    DynamoDBError
    ├── ConditionFailed        the condition does not hold; `item` is what is there, if asked for
    ├── TransactionCancelled   `reasons` say why, item by item; nothing was written
    ├── Contended              another transaction has the item; retries did not help
    ├── Throttled              more than the table's or the account's capacity
    ├── Unavailable            no answer of use: connection, 5xx, or the deadline passed
    ├── AccessDenied           no credentials, or not for this
    ├── NoSuchTable            the table (or index) does not exist
    ├── TableInUse             the table exists already, or is being changed
    └── InvalidCall            the request is wrong: a defect of ours
"""

import re
from typing import Any

import msgspec
from msgspec import Struct, field

__all__ = [
    "AccessDenied",
    "ConditionFailed",
    "Contended",
    "DynamoDBError",
    "InvalidCall",
    "NoSuchTable",
    "Reason",
    "Refusal",
    "TableInUse",
    "Throttled",
    "TransactionCancelled",
    "Unavailable",
    "parse_refusal",
]


class DynamoDBError(Exception):
    """Root.

    uncertain: an earlier attempt of the same call, or this one, ended without a telling answer,
    so a write may have been applied all the same. A condition that fails then may fail because
    the call's own earlier attempt made it fail.
    """

    uncertain: bool = False


class ConditionFailed(DynamoDBError):
    """The condition of a single write does not hold.

    item: what is there, where ReturnValuesOnConditionCheckFailure asked for it.
    """

    def __init__(self, message: str, item: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.item = item


class Reason(Struct, frozen=True, rename="pascal"):
    """Why one item of a transaction was refused; code "None" where it was not.

    https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_CancellationReason.html
    """

    code: str = "None"
    message: str | None = None
    item: dict[str, Any] | None = None


class TransactionCancelled(DynamoDBError):
    """Nothing of the transaction was written. `reasons` are in the order of its items."""

    def __init__(self, message: str, reasons: tuple[Reason, ...]) -> None:
        super().__init__(message)
        self.reasons = reasons


class Contended(DynamoDBError):
    """Transactions that are under way have the items; trying again did not help in time."""


class Throttled(DynamoDBError):
    """The capacity is used up; trying again did not help in time."""


class Unavailable(DynamoDBError):
    """DynamoDB cannot be reached, fails, or does not answer in time."""


class AccessDenied(DynamoDBError):
    """There are no credentials, or they are not valid, or they do not allow this."""


class NoSuchTable(DynamoDBError):
    """The table or index does not exist."""


class TableInUse(DynamoDBError):
    """The table exists already, or is being changed."""


class InvalidCall(DynamoDBError):
    """DynamoDB does not accept the request."""


class Refusal(Struct, frozen=True):
    """An answer that is not 200: its short code, its text, and what came with them."""

    status: int
    code: str
    message: str
    reasons: tuple[Reason, ...] = ()
    item: dict[str, Any] | None = None


class _Document(Struct):
    type: str = field(name="__type", default="")
    message: str | None = None
    capital_message: str | None = field(name="Message", default=None)
    reasons: tuple[Reason, ...] = field(name="CancellationReasons", default=())
    item: dict[str, Any] | None = field(name="Item", default=None)


_decode = msgspec.json.Decoder(_Document).decode
_listed = re.compile(r"specific reasons \[([^\]]*)\]")


def parse_refusal(status: int, body: bytes) -> Refusal:
    """Take an error's document apart; whatever it is, the status counts."""
    try:
        found = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Refusal(status, "", f"status {status}")
    message = (found.message or found.capital_message or f"status {status}")[:2_000]
    code = found.type.rpartition("#")[2]
    reasons = found.reasons
    if not reasons and (listed := _listed.search(message)):
        reasons = tuple([Reason(each.strip()) for each in listed[1].split(",")])
    return Refusal(status, code, message, reasons, found.item)
