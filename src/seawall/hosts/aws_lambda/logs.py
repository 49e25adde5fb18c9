"""Logs as Lambda's own runtimes write them: one JSON object a line, or text.

The fields are those of AWS's Python runtime (github.com/aws/
aws-lambda-python-runtime-interface-client, lambda_runtime_log_utils), so that what reads its
logs reads ours.
"""

import logging
import sys
import time
import traceback
from collections.abc import Mapping
from typing import Any

import msgspec

from seawall.hosts.aws_lambda.context import current_invocation
from seawall.telemetry.floods import FloodFilter

__all__ = ["JsonFormatter", "set_up_logs"]

_LEVELS = {"TRACE": "DEBUG", "FATAL": "CRITICAL"}
_OWN = frozenset(vars(logging.LogRecord("", 0, "", 0, "", None, None))) | {"message", "asctime"}
_TIME = "%Y-%m-%dT%H:%M:%S"


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON; what was given as `extra` stands beside."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        line: dict[str, Any] = {
            "timestamp": time.strftime(f"{_TIME}Z", time.gmtime(record.created)),
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
        if (invocation := current_invocation.get()) is not None:
            line["requestId"] = invocation.aws_request_id
            if invocation.tenant_id:
                line["tenantId"] = invocation.tenant_id
        for name, value in vars(record).items():
            if name not in _OWN and name not in line:
                line[name] = value
        try:
            return msgspec.json.encode(line, enc_hook=str).decode()
        except (TypeError, UnicodeEncodeError, msgspec.ValidationError):
            return msgspec.json.encode({key: repr(value) for key, value in line.items()}).decode()


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        invocation = current_invocation.get()
        request = invocation.aws_request_id if invocation is not None else ""
        at = time.strftime(_TIME, time.gmtime(record.created))
        text = f"[{record.levelname}]\t{at}.{int(record.msecs):03}Z\t{request}\t"
        text += record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


def set_up_logs(environment: Mapping[str, str]) -> None:
    """Have everything logged to standard output, in the function's format and from its level."""
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(FloodFilter())
    json_lines = environment.get("AWS_LAMBDA_LOG_FORMAT", "").upper() == "JSON"
    handler.setFormatter(JsonFormatter() if json_lines else _TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    level = environment.get("AWS_LAMBDA_LOG_LEVEL", "").upper()
    level = _LEVELS.get(level, level)
    if level in logging.getLevelNamesMapping():
        root.setLevel(level)
