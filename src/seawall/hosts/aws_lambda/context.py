"""What an invocation is told beside its event."""

import asyncio
import logging
import re
import time
from collections.abc import Mapping
from contextvars import ContextVar

from msgspec import Struct

__all__ = ["InvocationContext", "context_of", "current_invocation", "is_request_id"]

_log = logging.getLogger("seawall.lambda")
_LONGEST_SECONDS = 900.0  # a function's timeout: lambda/latest/dg, gettingstarted-limits
_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,255}")
_TRACE_ID = re.compile(r"[!-~ ]{0,1024}")


class InvocationContext(Struct, frozen=True):
    """The headers of the Runtime API's answer, and what AWS's own context object has.

    deadline: seconds on the event loop's clock. trace_id: X-Ray's tracing header.
    client_context, cognito_identity: JSON, from AWS's mobile SDK; empty without it.
    """

    aws_request_id: str
    deadline: float
    invoked_function_arn: str = ""
    trace_id: str = ""
    client_context: str = ""
    cognito_identity: str = ""
    tenant_id: str = ""
    invocation_id: str = ""
    function_name: str = ""
    function_version: str = ""
    memory_limit_in_mb: str = ""

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the function times out, as AWS's own context has it."""
        return max(0, int((self.deadline - asyncio.get_running_loop().time()) * 1e3))


current_invocation: ContextVar[InvocationContext | None] = ContextVar(
    "current_invocation", default=None
)
"""The invocation that the running task belongs to; logs and outgoing calls can name it."""


def context_of(headers: Mapping[str, str], environment: Mapping[str, str]) -> InvocationContext:
    """The context of an invocation that has just been received.

    The deadline comes as Unix time, which is right again after a restore, when monotonic clocks
    may have stood still. Where it is missing or cannot be read, it is the latest that a function
    can have: Lambda ends the environment at the real one.
    """
    loop = asyncio.get_running_loop()
    trace_id = headers.get("lambda-runtime-trace-id", "")
    return InvocationContext(
        aws_request_id=headers.get("lambda-runtime-aws-request-id", ""),
        deadline=loop.time() + _seconds_left(headers.get("lambda-runtime-deadline-ms", "")),
        invoked_function_arn=headers.get("lambda-runtime-invoked-function-arn", ""),
        trace_id=trace_id if _TRACE_ID.fullmatch(trace_id) else "",
        client_context=headers.get("lambda-runtime-client-context", ""),
        cognito_identity=headers.get("lambda-runtime-cognito-identity", ""),
        tenant_id=headers.get("lambda-runtime-aws-tenant-id", ""),
        invocation_id=headers.get("lambda-runtime-invocation-id", ""),
        function_name=environment.get("AWS_LAMBDA_FUNCTION_NAME", ""),
        function_version=environment.get("AWS_LAMBDA_FUNCTION_VERSION", ""),
        memory_limit_in_mb=environment.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", ""),
    )


def is_request_id(text: str) -> bool:
    """Whether an invocation of this id can be answered: it becomes part of a path."""
    return _REQUEST_ID.fullmatch(text) is not None


def _seconds_left(deadline_ms: str) -> float:
    if len(deadline_ms) <= 20:
        try:
            return min(_LONGEST_SECONDS, int(deadline_ms) / 1e3 - time.time())
        except ValueError:
            pass
    _log.warning("the invocation's deadline cannot be read: %.40r", deadline_ms)
    return _LONGEST_SECONDS
