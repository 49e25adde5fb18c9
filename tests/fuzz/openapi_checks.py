"""Schemathesis hook: exceptions that a schema cannot express."""

from typing import Any

import schemathesis
from schemathesis.specs.openapi.checks import positive_data_acceptance

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
