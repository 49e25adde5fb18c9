"""Errors of DynamoDB calls, and the classification of its refusals.

::

    DynamoDBError
    ├── ConditionFailed        the condition is not met; `item` is the present item, if requested
    ├── TransactionCancelled   `reasons` by item; nothing was written
    ├── Contended              another transaction uses the item; retries failed
    ├── Throttled              over the capacity of the table or the account
    ├── Unavailable            no usable answer: connection, 5xx, or the deadline passed
    ├── AccessDenied           no credentials, or none that permit this
    ├── NoSuchTable            the table (or index) does not exist
    ├── TableInUse             the table exists already, or is being changed
    └── InvalidCall            the request is invalid: a defect of this client
"""

import re
from typing import Any

import msgspec
from msgspec import Struct, field

from seawall.aws.signature import CLOCK_REFUSAL_CODES

__all__ = [
    "EXPIRED_TOKEN_CODES",
    "AccessDenied",
    "ConditionFailed",
    "Contended",
    "DynamoDBError",
    "InvalidCall",
    "NoSuchTable",
    "Reason",
    "Refusal",
    "RetryableFailure",
    "TableInUse",
    "Throttled",
    "TransactionCancelled",
    "Unavailable",
    "classify_refusal",
    "parse_refusal",
]


class DynamoDBError(Exception):
    """Root.

    Attributes:
        uncertain: An attempt of the same call ended without an answer, so a write may have been
            applied nevertheless. A condition that fails then may fail because of the call's own
            earlier attempt.
    """

    uncertain: bool = False


class ConditionFailed(DynamoDBError):
    """The condition of a single write is not met.

    Attributes:
        item: The present item, where ReturnValuesOnConditionCheckFailure requested it.
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
    """Other transactions use the items; retries did not help in time."""


class Throttled(DynamoDBError):
    """The capacity is used up; retries did not help in time."""


class Unavailable(DynamoDBError):
    """DynamoDB cannot be reached, fails, or does not answer in time."""


class AccessDenied(DynamoDBError):
    """There are no credentials, or they are invalid, or do not permit this."""


class NoSuchTable(DynamoDBError):
    """The table or index does not exist."""


class TableInUse(DynamoDBError):
    """The table exists already, or is being changed."""


class InvalidCall(DynamoDBError):
    """DynamoDB does not accept the request."""


class Refusal(Struct, frozen=True):
    """An error response: its short code, its message, and the details sent with them."""

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
    """Parse an error response of any form."""
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


EXPIRED_TOKEN_CODES = frozenset({"ExpiredTokenException", "ExpiredToken"})
"""Codes after which other credentials may succeed."""

_RETRYABLE: dict[str, type[DynamoDBError]] = {
    "ProvisionedThroughputExceededException": Throttled,
    "ThrottlingException": Throttled,
    "Throttling": Throttled,
    "RequestLimitExceeded": Throttled,
    "TooManyRequestsException": Throttled,
    "TransactionConflictException": Contended,
    "TransactionInProgressException": Contended,
}
_FINAL: dict[str, type[DynamoDBError]] = {
    "AccessDeniedException": AccessDenied,
    "IncompleteSignatureException": AccessDenied,
    "InvalidClientTokenId": AccessDenied,
    "MissingAuthenticationTokenException": AccessDenied,
    "OptInRequired": AccessDenied,
    "UnrecognizedClientException": AccessDenied,
    "ResourceNotFoundException": NoSuchTable,
    "ResourceInUseException": TableInUse,
    "TableAlreadyExistsException": TableInUse,
} | dict.fromkeys(EXPIRED_TOKEN_CODES | CLOCK_REFUSAL_CODES, AccessDenied)

_THROTTLING_REASONS = frozenset({"ThrottlingError", "ProvisionedThroughputExceeded"})
_RETRYABLE_REASONS = _THROTTLING_REASONS | {"TransactionConflict"}


class RetryableFailure(Exception):
    """A failed attempt that may be retried; `final` is what to raise if it is not."""

    def __init__(self, final: DynamoDBError) -> None:
        super().__init__()
        self.final = final

    @property
    def throttled(self) -> bool:
        """Whether it is retried more slowly than other failures."""
        return isinstance(self.final, Throttled)


def classify_refusal(refusal: Refusal) -> DynamoDBError | RetryableFailure:
    """Return what to raise for an error response: final, or worth a retry.

    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html
    """
    code = refusal.code
    text = f"{code}: {refusal.message}" if code else refusal.message
    if code == "ConditionalCheckFailedException":
        return ConditionFailed(text, refusal.item)
    if code == "TransactionCanceledException":
        return _classify_transaction(refusal, text)
    if retryable := _RETRYABLE.get(code):
        return RetryableFailure(retryable(text))
    if refusal.status >= 500:
        failed = Unavailable(text)
        failed.uncertain = True
        return RetryableFailure(failed)
    return _FINAL.get(code, AccessDenied if refusal.status == 403 else InvalidCall)(text)


def _classify_transaction(refusal: Refusal, text: str) -> DynamoDBError | RetryableFailure:
    codes = {each.code for each in refusal.reasons if each.code != "None"}
    if not codes or not codes <= _RETRYABLE_REASONS:
        return TransactionCancelled(text, refusal.reasons)
    return RetryableFailure(Throttled(text) if codes <= _THROTTLING_REASONS else Contended(text))
