"""Context of an invocation, as handlers get it, and log lines that name the invocation."""

import asyncio
import io
import logging
import re
import sys
import time
from collections.abc import Mapping
from contextvars import ContextVar

from msgspec import Struct

from seawall.hosts.log_filter import FloodFilter

__all__ = [
    "InvocationContext",
    "context_of",
    "current_invocation",
    "is_request_id",
    "set_up_logs",
    "traceparent_of",
]

_log = logging.getLogger("seawall.lambda")
_LONGEST_SECONDS = 900.0  # the longest timeout: lambda/latest/dg, gettingstarted-limits
_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,255}")
_TRACE_ID = re.compile(r"[!-~ ]{0,1024}")
_ROOT = re.compile(r"1-([0-9a-f]{8})-([0-9a-f]{24})")
_PARENT = re.compile(r"[0-9a-f]{16}")


class InvocationContext(Struct, frozen=True):
    """The context of one invocation, with the attributes of AWS's context object.

    Attributes:
        aws_request_id: Of the invocation.
        deadline: Seconds on the event loop's clock.
        invoked_function_arn: With version or alias, if the caller gave one.
        trace_id: X-Ray's tracing header.
        client_context: JSON from AWS's mobile SDK, like `cognito_identity`; empty without it.
        tenant_id: Of Lambda's tenant isolation.
        invocation_id: To be repeated in the response on managed instances.
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
        """Milliseconds until the function times out, as in AWS's context object."""
        return max(0, int((self.deadline - asyncio.get_running_loop().time()) * 1e3))


current_invocation: ContextVar[InvocationContext | None] = ContextVar(
    "current_invocation", default=None
)
"""The invocation that the current task belongs to, for logs and outgoing calls."""


def context_of(headers: Mapping[str, str], environment: Mapping[str, str]) -> InvocationContext:
    """Read the context of a received invocation.

    The deadline is sent as Unix time, which is correct after a restore, unlike monotonic clocks.
    If it is missing or invalid, the longest timeout of a function is assumed: Lambda ends the
    environment at the real one.

    Args:
        headers: Of `invocation/next`, names in lower case.
        environment: Of the function.
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
    """Whether an invocation with this id can be answered: the id becomes part of a path."""
    return _REQUEST_ID.fullmatch(text) is not None


def traceparent_of(header: str) -> bytes:
    """X-Ray's tracing header as the W3C header `traceparent`; empty if AWS does not trace.

    Without tracing by AWS, the header names a trace that is not sampled; then sampling is our own
    decision. https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html
    """
    fields = dict(part.strip().partition("=")[::2] for part in header.split(";"))
    root = _ROOT.fullmatch(fields.get("Root", ""))
    parent = fields.get("Parent", "")
    if root is None or not _PARENT.fullmatch(parent) or fields.get("Sampled") != "1":
        return b""
    return f"00-{root[1]}{root[2]}-{parent}-01".encode()


def _seconds_left(deadline_ms: str) -> float:
    if len(deadline_ms) <= 20:
        try:
            return min(_LONGEST_SECONDS, int(deadline_ms) / 1e3 - time.time())
        except ValueError:
            pass
    _log.warning("the invocation's deadline cannot be read: %.40r", deadline_ms)
    return _LONGEST_SECONDS


_LEVELS = {"TRACE": "DEBUG", "FATAL": "CRITICAL"}


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        invocation = current_invocation.get()
        request = invocation.aws_request_id if invocation is not None else ""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        text = f"[{record.levelname}]\t{at}.{int(record.msecs):03}Z\t{request}\t"
        text += record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


def _invocation_fields() -> dict[str, object]:
    invocation = current_invocation.get()
    if invocation is None:
        return {}
    fields: dict[str, object] = {"requestId": invocation.aws_request_id}
    if invocation.tenant_id:
        fields["tenantId"] = invocation.tenant_id
    return fields


def set_up_logs(environment: Mapping[str, str]) -> None:
    """Log to standard output, with the format and level of the function's configuration."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a lone surrogate must not lose the line
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(FloodFilter())
    if environment.get("AWS_LAMBDA_LOG_FORMAT", "").upper() == "JSON":
        from seawall.hosts.json_lines import JsonFormatter  # noqa: PLC0415 - only if configured

        handler.setFormatter(JsonFormatter(_invocation_fields))
    else:
        handler.setFormatter(_TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    level = environment.get("AWS_LAMBDA_LOG_LEVEL", "").upper()
    level = _LEVELS.get(level, level)
    if level in logging.getLevelNamesMapping():
        root.setLevel(level)
