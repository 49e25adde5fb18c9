"""Log formatter for JSON lines, in the format of AWS's runtimes.

The fields are those of AWS's Python runtime (github.com/aws/
aws-lambda-python-runtime-interface-client, lambda_runtime_log_utils), so that tools for its logs
work. Lines of a traced turn have trace_id and span_id; those of a request its id, and its tenant
if that is known.
"""

import logging
import time
import traceback
from collections.abc import Callable
from typing import Any

import msgspec

from seawall.requests import current_request

__all__ = ["JsonFormatter"]

_OWN = frozenset(vars(logging.LogRecord("", 0, "", 0, "", None, None))) | {
    *("message", "asctime"),
    "color_message",  # of uvicorn: the message with terminal escapes
}


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON; fields of `extra` are added."""

    def __init__(self, host_fields: Callable[[], dict[str, object]] = dict) -> None:
        """Create a formatter.

        Args:
            host_fields: Returns the fields of the host for the current request.
        """
        super().__init__()
        self._host_fields = host_fields

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        line: dict[str, Any] = {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname,
            "message": (
                record.msg
                if isinstance(record.msg, dict) and not record.args
                else record.getMessage()
            ),
            "logger": record.name,
        }
        if record.exc_info and record.exc_info[0] is not None:
            kind, error, trace = record.exc_info
            line["stackTrace"] = traceback.format_tb(trace)
            line["errorType"] = kind.__name__
            line["errorMessage"] = str(error)
            line["location"] = f"{record.pathname}:{record.funcName}:{record.lineno}"
        if (request := current_request.get()) is not None:
            line["request_id"] = request.id
            if request.tenant:
                line["tenant"] = request.tenant
        line |= self._host_fields()
        for name, value in vars(record).items():
            if name not in _OWN and name not in line:
                line[name] = value
        try:
            return msgspec.json.encode(line, enc_hook=str).decode()
        except (TypeError, UnicodeEncodeError, msgspec.ValidationError):
            return msgspec.json.encode({key: repr(value) for key, value in line.items()}).decode()
