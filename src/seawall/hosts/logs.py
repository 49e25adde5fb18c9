"""Logging of server processes: to standard error, as text or JSON, with a flood filter."""

import logging
import sys
from collections.abc import Mapping

from seawall.errors import ConfigError, did_you_mean
from seawall.hosts.log_filter import FloodFilter
from seawall.printable import printable

__all__ = ["FORMAT", "FORMATS", "LEVEL", "LEVELS", "set_up_logs"]

LEVEL = "SEAWALL_LOG_LEVEL"
FORMAT = "SEAWALL_LOG_FORMAT"
LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _TextFormatter(logging.Formatter):
    """Formats a record as one line; text from clients is escaped. A traceback follows it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """See logging.Formatter."""
        record.message = printable(record.message)
        return super().formatMessage(record)


def set_up_logs(environment: Mapping[str, str]) -> None:
    """Configure the logging of this process by SEAWALL_LOG_LEVEL and SEAWALL_LOG_FORMAT.

    Every process of a server calls it.

    Raises:
        ConfigError: A variable has an invalid value.
    """
    level = _one_of(environment, LEVEL, LEVELS, "warning")
    form = _one_of(environment, FORMAT, FORMATS, "text")
    logging.basicConfig(
        level=level.upper(),
        format=_TEXT,
        stream=sys.stderr,
    )
    formatter: logging.Formatter = _TextFormatter(_TEXT)
    if form == "json":
        from seawall.hosts.json_lines import JsonFormatter  # noqa: PLC0415 - only if configured

        formatter = JsonFormatter()
    for handler in logging.getLogger().handlers:
        handler.setFormatter(formatter)
        handler.addFilter(FloodFilter())


def _one_of(environment: Mapping[str, str], name: str, known: tuple[str, ...], default: str) -> str:
    value = environment.get(name, "").lower() or default
    if value not in known:
        shown = environment[name][:40]
        raise ConfigError(
            f"{name} (environment): {shown!r} is not one of: {', '.join(known)}"
            f"{did_you_mean(value, known)}"
        )
    return value
