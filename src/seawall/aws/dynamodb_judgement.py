"""What an answer other than 200 means: final, or worth another attempt.

https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html
"""

from seawall.aws.dynamodb_errors import (
    AccessDenied,
    ConditionFailed,
    Contended,
    DynamoDBError,
    InvalidCall,
    NoSuchTable,
    Refusal,
    TableInUse,
    Throttled,
    TransactionCancelled,
    Unavailable,
)
from seawall.aws.server_clock import CLOCK_REFUSAL_CODES

__all__ = ["EXPIRED_TOKEN_CODES", "RetryableFailure", "classify_refusal"]

EXPIRED_TOKEN_CODES = frozenset({"ExpiredTokenException", "ExpiredToken"})
"""Codes that say that other credentials may do."""

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
    """An attempt failed that may be repeated; `final` is what to raise if it is not."""

    def __init__(self, final: DynamoDBError) -> None:
        super().__init__()
        self.final = final

    @property
    def throttled(self) -> bool:
        """Whether it needs more patience than other failures."""
        return isinstance(self.final, Throttled)


def classify_refusal(refusal: Refusal) -> DynamoDBError | RetryableFailure:
    """What to raise for this answer."""
    code = refusal.code
    text = f"{code}: {refusal.message}" if code else refusal.message
    if code == "ConditionalCheckFailedException":
        return ConditionFailed(text, refusal.item)
    if code == "TransactionCanceledException":
        return _classify_transaction(refusal, text)
    if passing := _RETRYABLE.get(code):
        return RetryableFailure(passing(text))
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
