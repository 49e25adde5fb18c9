"""HAProxy's log of HTTP requests.

Format: https://docs.haproxy.org/3.0/configuration.html#8.2.3: `... [accept date] frontend
backend/server TR/Tw/Tc/Tr/Ta status ...`, times in milliseconds; the last is that of the whole
request, with a `+` where it was logged before its end.
"""

import re
from collections.abc import Iterable

import numpy as np

from seawall.errors import ConfigError
from seawall.plan.inputs.exports.moments import parse_time
from seawall.plan.inputs.trace import MOST_REQUESTS, Trace

__all__ = ["is_haproxy_log", "read_haproxy_log"]

_ENTRY = re.compile(
    r"\[(\d\d/[A-Za-z]{3}/\d{4}:[\d:.]+)\] \S+ \S+/\S+ (?:-?\d+/){4}(\+?-?\d+) (?:-1|\d{3}) "
)


def is_haproxy_log(line: str) -> bool:
    """It has the part that every entry has."""
    return _ENTRY.search(line) is not None


def read_haproxy_log(lines: Iterable[str], name: str) -> Trace:
    """Arrivals by their accept date; durations of those that ended before they were logged.

    Lines of other kinds, such as those of health checks, are passed over.

    Raises:
        ConfigError: It names file and line.
    """
    arrivals: list[float] = []
    durations: list[float] = []
    for number, line in enumerate(lines, start=1):
        entry = _ENTRY.search(line)
        if entry is None:
            continue
        if len(arrivals) == MOST_REQUESTS:
            raise ConfigError(f"{name}:{number}: more than {MOST_REQUESTS:,} requests")
        when = parse_time(entry[1])
        if when is None:
            raise ConfigError(f"{name}:{number}: {entry[1]!r} is not a time")
        arrivals.append(when)
        if not entry[2].startswith(("+", "-")):
            durations.append(float(entry[2]) / 1e3)
    times = np.sort(np.array(arrivals))
    return Trace(
        times - times[0],
        durations=np.array(durations) if durations else None,
        whole=True,
        source="HAProxy's log",
    )
