"""Logs of a server's processes: to standard error, as text or JSON, not to be flooded."""

import logging
import sys
from collections.abc import Mapping

from seawall.telemetry.floods import FloodFilter

__all__ = ["FORMAT", "LEVEL", "set_up_logs"]

LEVEL = "SEAWALL_LOG_LEVEL"
FORMAT = "SEAWALL_LOG_FORMAT"


def set_up_logs(environment: Mapping[str, str]) -> None:
    """Have the process log as its environment says; every process of a server has to."""
    logging.basicConfig(
        level=environment.get(LEVEL, "warning").upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    formatter = None
    if environment.get(FORMAT) == "json":
        from seawall.hosts.json_lines import JsonFormatter  # noqa: PLC0415 - only where wanted

        formatter = JsonFormatter()
    for handler in logging.getLogger().handlers:
        if formatter is not None:
            handler.setFormatter(formatter)
        handler.addFilter(FloodFilter())
