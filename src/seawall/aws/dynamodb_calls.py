"""Requests, answers and errors of the DynamoDB API: the subset that the session store uses.

https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_Operations_Amazon_DynamoDB.html

Names are DynamoDB's own in Python's spelling: `table_name` goes out as `TableName`. Attribute
values are plain dictionaries in DynamoDB's notation, `{"S": "text"}`, `{"N": "12"}`,
`{"B": b"..."}`: bytes go out as base64, and come back as base64 text unless a typed item says
`bytes`. Measured, plain dictionaries are encoded as fast as structures and decoded faster
(docs/decisions/002-dynamodb-client.md).

Typed items need a declaration and an operation of their own::

    class Text(Struct):
        S: str

    class Head(Struct):
        pk: Text

    GET_HEAD = Operation("GetItem", Got[Head])
    found = await client.call(GET_HEAD, Get(...), deadline=deadline)

Errors::

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
from typing import Any, Generic, Literal, TypeVar

import msgspec
from msgspec import Struct, field

from seawall.aws import CLOCK_REFUSAL_CODES

__all__ = [
    "BATCH_GET",
    "BATCH_WRITE",
    "CREATE_TABLE",
    "DELETE",
    "DELETE_TABLE",
    "DESCRIBE_TABLE",
    "DESCRIBE_TTL",
    "EXPIRED_TOKEN_CODES",
    "GET",
    "PUT",
    "QUERY",
    "TRANSACT_GET",
    "TRANSACT_WRITE",
    "UPDATE",
    "UPDATE_TTL",
    "AccessDenied",
    "BatchGetOutput",
    "BatchWriteOutput",
    "Capacity",
    "ConditionCheck",
    "ConditionFailed",
    "Contended",
    "Delete",
    "DynamoDBError",
    "Get",
    "GetOutput",
    "InvalidCall",
    "Item",
    "NoSuchTable",
    "Operation",
    "Page",
    "Put",
    "Query",
    "Reason",
    "Refusal",
    "RetryableFailure",
    "Table",
    "TableInUse",
    "TableOutput",
    "Throttled",
    "TimeToLive",
    "TimeToLiveOutput",
    "TransactGetOutput",
    "TransactWriteOutput",
    "TransactionCancelled",
    "Unavailable",
    "Update",
    "Value",
    "WriteOutput",
    "classify_refusal",
    "parse_refusal",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Value = dict[str, Any]
"""An attribute value: one key, its type, such as {"S": "text"}."""

Item = dict[str, Value]
"""Attribute values by attribute."""

OnFailure = Literal["ALL_OLD", "NONE"]
Returned = Literal["NONE", "ALL_OLD", "UPDATED_OLD", "ALL_NEW", "UPDATED_NEW"]


class Operation(Generic[T_co]):
    """A call of the API with the decoder of its answer; created once, at import.

    The decoder is built when the first answer comes: a cold start makes few of the calls.
    """

    __slots__ = ("_answer", "counted", "decode", "name", "target")

    def __init__(self, name: str, answer: type[T_co]) -> None:
        self.name = name
        self.counted = "Item" in name or name == "Query"  # those that report consumed capacity
        self.target = f"DynamoDB_20120810.{name}"
        self._answer = answer

    def __getattr__(self, name: str) -> object:
        if name != "decode":
            raise AttributeError(name)
        self.decode = msgspec.json.Decoder(self._answer).decode
        return self.decode


# Requests.


class _Call(Struct, kw_only=True, omit_defaults=True, rename="pascal"):
    """Common part of calls on a table; fields at their defaults are not sent."""

    table_name: str


class Get(_Call, kw_only=True):
    """GetItem, and a part of TransactGetItems (there without `consistent_read`)."""

    key: Item
    consistent_read: bool = False
    projection_expression: str | None = None
    expression_attribute_names: dict[str, str] | None = None


class Query(_Call, kw_only=True):
    """One page of a partition, or of an index. `exclusive_start_key` continues a page."""

    key_condition_expression: str
    index_name: str | None = None
    filter_expression: str | None = None
    projection_expression: str | None = None
    expression_attribute_names: dict[str, str] | None = None
    expression_attribute_values: Item | None = None
    consistent_read: bool = False
    scan_index_forward: bool = True
    limit: int | None = None
    exclusive_start_key: Item | None = None
    select: str | None = None


class _Write(_Call, kw_only=True):
    condition_expression: str | None = None
    expression_attribute_names: dict[str, str] | None = None
    expression_attribute_values: Item | None = None
    return_values_on_condition_check_failure: OnFailure = "NONE"
    return_values: Returned = "NONE"  # not in transactions


class Put(_Write, kw_only=True):
    """PutItem, and a part of TransactWriteItems."""

    item: Item


class Update(_Write, kw_only=True):
    """UpdateItem, and a part of TransactWriteItems.

    An update that is not idempotent (`ADD`, `SET a = a + :n`) needs a condition that its own
    success makes false, because an attempt whose answer is lost is repeated.
    """

    key: Item
    update_expression: str


class Delete(_Write, kw_only=True):
    """DeleteItem, and a part of TransactWriteItems."""

    key: Item


class ConditionCheck(_Call, kw_only=True):
    """A part of TransactWriteItems that only checks a condition."""

    key: Item
    condition_expression: str
    expression_attribute_names: dict[str, str] | None = None
    expression_attribute_values: Item | None = None
    return_values_on_condition_check_failure: OnFailure = "NONE"


class Table(_Call, kw_only=True):
    """CreateTable. Without `provisioned_throughput` the table is billed on demand."""

    attribute_definitions: list[dict[str, str]]
    key_schema: list[dict[str, str]]
    billing_mode: Literal["PAY_PER_REQUEST", "PROVISIONED"] | None = None
    provisioned_throughput: dict[str, int] | None = None
    global_secondary_indexes: list[dict[str, Any]] | None = None
    table_class: str | None = None
    deletion_protection_enabled: bool = False
    tags: list[dict[str, str]] | None = None


# Answers.


class Capacity(Struct, rename="pascal"):
    """Capacity units that a call consumed of one table, where the client requests them."""

    table_name: str = ""
    capacity_units: float = 0.0
    read_capacity_units: float | None = None
    write_capacity_units: float | None = None


class GetOutput(Struct, Generic[T], rename="pascal"):
    """The answer of GetItem, and each part of TransactGetItems'; `item` is None if none exists."""

    item: T | None = None
    consumed_capacity: Capacity | None = None


class Page(Struct, Generic[T], rename="pascal"):
    """The answer of Query. `last_evaluated_key` continues it; None at the end."""

    items: list[T] = msgspec.field(default_factory=list)
    count: int = 0
    scanned_count: int = 0
    last_evaluated_key: Item | None = None
    consumed_capacity: Capacity | None = None


class WriteOutput(Struct, Generic[T], rename="pascal"):
    """The answer of a single write. `attributes`: what `return_values` requested."""

    attributes: T | None = None
    consumed_capacity: Capacity | None = None


class TransactWriteOutput(Struct, rename="pascal"):
    """TransactWriteItems' answer."""

    consumed_capacity: list[Capacity] | None = None


class TransactGetOutput(Struct, Generic[T], rename="pascal"):
    """The answer of TransactGetItems: one part for each request, in order."""

    responses: list[GetOutput[T]]
    consumed_capacity: list[Capacity] | None = None


class BatchGetOutput(Struct, Generic[T], rename="pascal"):
    """BatchGetItem's answer: items by table, and the keys that DynamoDB did not process."""

    responses: dict[str, list[T]] = msgspec.field(default_factory=dict)
    unprocessed_keys: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    consumed_capacity: list[Capacity] | None = None


class BatchWriteOutput(Struct, rename="pascal"):
    """BatchWriteItem's answer: the writes that DynamoDB did not process, by table."""

    unprocessed_items: dict[str, list[dict[str, Any]]] = msgspec.field(default_factory=dict)
    consumed_capacity: list[Capacity] | None = None


class TableDescription(Struct, rename="pascal"):
    """Description of a table; only the fields that the store uses."""

    table_name: str
    table_status: str
    key_schema: list[dict[str, str]] = msgspec.field(default_factory=list)
    attribute_definitions: list[dict[str, str]] = msgspec.field(default_factory=list)
    global_secondary_indexes: list[dict[str, Any]] = msgspec.field(default_factory=list)
    billing_mode_summary: dict[str, Any] | None = None
    item_count: int = 0


class TableOutput(Struct):
    """The answer about a table: Table in DescribeTable, TableDescription in the others."""

    described: TableDescription | None = msgspec.field(name="Table", default=None)
    changed: TableDescription | None = msgspec.field(name="TableDescription", default=None)

    @property
    def table(self) -> TableDescription:
        """The description, under either name."""
        found = self.described or self.changed
        if found is None:
            raise ValueError("DynamoDB's answer does not describe a table")
        return found


class TimeToLive(Struct, rename="pascal"):
    """Whether items expire (ENABLED, ENABLING, DISABLED, DISABLING), and by which attribute."""

    time_to_live_status: str = "DISABLED"
    attribute_name: str = ""


class TimeToLiveOutput(Struct, rename="pascal"):
    """DescribeTimeToLive's answer."""

    time_to_live_description: TimeToLive


GET = Operation("GetItem", GetOutput[Item])
QUERY = Operation("Query", Page[Item])
PUT = Operation("PutItem", WriteOutput[Item])
UPDATE = Operation("UpdateItem", WriteOutput[Item])
DELETE = Operation("DeleteItem", WriteOutput[Item])
TRANSACT_WRITE = Operation("TransactWriteItems", TransactWriteOutput)
TRANSACT_GET = Operation("TransactGetItems", TransactGetOutput[Item])
BATCH_GET = Operation("BatchGetItem", BatchGetOutput[Item])
BATCH_WRITE = Operation("BatchWriteItem", BatchWriteOutput)
CREATE_TABLE = Operation("CreateTable", TableOutput)
DESCRIBE_TABLE = Operation("DescribeTable", TableOutput)
DELETE_TABLE = Operation("DeleteTable", TableOutput)
UPDATE_TTL = Operation[dict[str, Any]]("UpdateTimeToLive", dict[str, Any])
DESCRIBE_TTL = Operation("DescribeTimeToLive", TimeToLiveOutput)


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
_LISTED = r"specific reasons \[([^\]]*)\]"


def parse_refusal(status: int, body: bytes) -> Refusal:
    """Parse an error response of any form."""
    try:
        found = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Refusal(status, "", f"status {status}")
    message = (found.message or found.capital_message or f"status {status}")[:2_000]
    code = found.type.rpartition("#")[2]
    reasons = found.reasons
    if not reasons and (listed := re.search(_LISTED, message)):
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
