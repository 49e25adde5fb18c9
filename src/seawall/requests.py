"""The request that a task answers, for log lines: its id, and whose it is once that is known."""

from contextvars import ContextVar

from msgspec import Struct

__all__ = ["Request", "current_request"]


class Request(Struct):
    """One request, shared by all tasks that work on it.

    id: as in the header `x-request-id` of the answer. tenant: empty until it is verified.
    """

    id: str
    tenant: str = ""


current_request: ContextVar[Request | None] = ContextVar("current_request", default=None)
"""None outside of requests, such as in turns that are taken over from another process."""
