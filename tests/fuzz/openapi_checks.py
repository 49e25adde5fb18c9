"""Schemathesis hook: checks with the exceptions that a schema cannot express."""

from typing import Any

import schemathesis
from schemathesis.specs.openapi.checks import (
    negative_data_rejection,
    positive_data_acceptance,
    use_after_free,
)

# The last message must be the user's and not empty, or answer what waits; a cursor is opaque; a
# schema within the request must be one that can be checked; a key belongs to the request it was
# used with; a response continues one thing at most, and only one that is stored; tools of clients
# are for agents that take them, and differ in their names; a file is one of those that are
# accepted; a conversation takes no items.
_FIELDS = (
    *("messages", "cursor", "response_format", "tools", "tool_choice", "attachments", "file"),
    *("input", "text", "conversation", "previous_response_id", "background", "after"),
    *("starting_after", "items"),
)
_CODES = ("idempotency-key-reused",)


@schemathesis.check
def valid_requests_are_taken(ctx: Any, response: Any, case: Any) -> bool | None:
    """`positive_data_acceptance` with the exceptions above."""
    if response.status_code == 422:
        problem = response.json()
        if problem["code"] in _CODES or problem.get("field", "").startswith(_FIELDS):
            return None
    return positive_data_acceptance(ctx, response, case)


@schemathesis.check
def invalid_requests_are_refused(ctx: Any, response: Any, case: Any) -> bool | None:
    """`negative_data_rejection`, but for a file of another type: in a form, all is text."""
    if case.operation.path == "/v1/files" and isinstance(case.body, dict):
        content = case.body.get("file", "")
        if not isinstance(content, (str, bytes)):
            return None
    return negative_data_rejection(ctx, response, case)


@schemathesis.check
def what_is_deleted_is_gone(ctx: Any, response: Any, case: Any) -> bool | None:
    """`use_after_free`, but for conversations: one without responses is not more than its name."""
    if case.operation.path.startswith("/v1/conversations/"):
        return None
    return use_after_free(ctx, response, case)
