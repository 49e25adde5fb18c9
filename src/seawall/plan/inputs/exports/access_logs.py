"""Access logs of an Application Load Balancer, and HAProxy's log of HTTP requests.

Format of the former:
https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-access-logs.html
(«Access log entries»): fields separated by spaces, in this order: type, time, elb, client:port,
target:port, request_processing_time, target_processing_time, response_processing_time, ...,
"request", "user_agent", ..., matched_rule_priority, request_creation_time, ... New fields are
added at the end.

Format of the latter: https://docs.haproxy.org/3.0/configuration.html#8.2.3: `... [accept date]
frontend backend/server TR/Tw/Tc/Tr/Ta status ...`, times in milliseconds; the last is that of the
whole request, with a `+` where it was logged before its end.
"""

import math
import re
from collections.abc import Iterable

import numpy as np

from seawall.errors import ConfigError
from seawall.plan.inputs.exports.trace import MOST_REQUESTS, Trace, start_of
from seawall.plan.inputs.exports.units import parse_time

__all__ = ["is_access_log", "is_haproxy_log", "read_access_log", "read_haproxy_log"]

_FIRST = re.compile(r"(http|https|h2|grpcs|ws|wss) \d{4}-\d\d-\d\dT\S+ \S")
# It comes after a quoted field and the rule's priority, before a quoted one.
_CREATED = re.compile(r'" (?:-1|\d{1,5}|-) (\d{4}-\d\d-\d\dT[\d:.]+Z) "')
_LONGEST = 1e6
_TIMES = ("request_processing_time", "target_processing_time", "response_processing_time")


def is_access_log(line: str) -> bool:
    """Whether a line is an entry of an Application Load Balancer's access log."""
    return _FIRST.match(line) is not None


def read_access_log(lines: Iterable[str], name: str) -> Trace:
    """Read arrivals and durations from an access log of an Application Load Balancer.

    A request arrived at its request_creation_time; without one, at `time` less its three
    processing times. Entries are in the order of answers, and files of several nodes follow one
    another: they are sorted. A request took from its arrival to `time`, and at least its
    target_processing_time, which ends with the answer's head while a streamed answer goes on.
    Where no target answered (target_processing_time -1) it has no duration.

    Raises:
        ConfigError: File, line and field are named.
    """
    arrivals: list[float] = []
    durations: list[float] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if not is_access_log(line):
            raise ConfigError(f"{name}:{number}: type: not an entry of an access log")
        if len(arrivals) == MOST_REQUESTS:
            raise ConfigError(f"{name}:{number}: more than {MOST_REQUESTS:,} requests")
        began, ended, target = _entry(line, f"{name}:{number}")
        arrivals.append(began)
        if target >= 0.0:
            durations.append(max(ended - began, target))
    if not arrivals:
        raise ConfigError(f"{name}: the trace is empty")
    times = np.sort(np.array(arrivals))
    return Trace(
        times - times[0],
        durations=np.array(durations) if durations else None,
        whole=True,
        start=start_of(times),
        source="the load balancer's access log",
    )


def _entry(line: str, where: str) -> tuple[float, float, float]:
    """Times of arrival and end, and target_processing_time."""
    words = line.split(" ", 8)
    if len(words) < 9:
        raise ConfigError(f"{where}: {len(words)} fields; an entry has more")
    ended = parse_time(words[1])
    if ended is None:
        raise ConfigError(f"{where}: time: {words[1]!r} is not a time")
    try:
        parts = [float(word) for word in words[5:8]]
    except ValueError:
        parts = [math.nan]
    if not all(-1.0 <= part < _LONGEST for part in parts):
        raise _no_seconds(words[5:8], where)
    created = _CREATED.search(words[8])
    began = parse_time(created[1]) if created else ended - sum(max(part, 0.0) for part in parts)
    if began is None or began > ended:
        raise ConfigError(f"{where}: request_creation_time: not a time before `time`")
    return began, ended, parts[1]


def _no_seconds(words: list[str], where: str) -> ConfigError:
    """The error for the first of the times that is invalid."""
    for field, word in zip(_TIMES, words, strict=True):
        try:
            value = float(word)
        except ValueError:
            return ConfigError(f"{where}: {field}: {word!r} is not a number")
        if not -1.0 <= value < _LONGEST:
            return ConfigError(f"{where}: {field}: {word} is not a time in seconds")
    raise AssertionError(words)  # one of them is


_ENTRY = re.compile(
    r"\[(\d\d/[A-Za-z]{3}/\d{4}:[\d:.]+)\] \S+ \S+/\S+ (?:-?\d+/){4}(\+?-?\d+) (?:-1|\d{3}) "
)


def is_haproxy_log(line: str) -> bool:
    """Whether a line is an entry of HAProxy's log."""
    return _ENTRY.search(line) is not None


def read_haproxy_log(lines: Iterable[str], name: str) -> Trace:
    """Read arrivals by accept date, and durations of requests that ended before they were logged.

    Lines of other kinds, such as health checks, are ignored.

    Raises:
        ConfigError: File and line are named.
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
        start=start_of(times),
        source="HAProxy's log",
    )
