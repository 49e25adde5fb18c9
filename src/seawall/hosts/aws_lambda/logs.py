"""Logging in the format of Lambda's own runtimes: JSON lines or text."""

import io
import logging
import sys
import time
from collections.abc import Mapping

from seawall.hosts.aws_lambda.context import current_invocation
from seawall.hosts.json_lines import TIME_FORMAT, JsonFormatter
from seawall.telemetry.log_filter import FloodFilter

__all__ = ["set_up_logs"]

_LEVELS = {"TRACE": "DEBUG", "FATAL": "CRITICAL"}


class _JsonFormatter(JsonFormatter):
    def host_fields(self) -> dict[str, object]:
        invocation = current_invocation.get()
        if invocation is None:
            return {}
        fields: dict[str, object] = {"requestId": invocation.aws_request_id}
        if invocation.tenant_id:
            fields["tenantId"] = invocation.tenant_id
        return fields


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        invocation = current_invocation.get()
        request = invocation.aws_request_id if invocation is not None else ""
        at = time.strftime(TIME_FORMAT, time.gmtime(record.created))
        text = f"[{record.levelname}]\t{at}.{int(record.msecs):03}Z\t{request}\t"
        text += record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


def set_up_logs(environment: Mapping[str, str]) -> None:
    """Log to standard output, with the format and level of the function's configuration."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a lone surrogate must not lose the line
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(FloodFilter())
    json_lines = environment.get("AWS_LAMBDA_LOG_FORMAT", "").upper() == "JSON"
    handler.setFormatter(_JsonFormatter() if json_lines else _TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    level = environment.get("AWS_LAMBDA_LOG_LEVEL", "").upper()
    level = _LEVELS.get(level, level)
    if level in logging.getLevelNamesMapping():
        root.setLevel(level)
