"""Access logs of an Application Load Balancer.

Format: https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-access-logs.html
(«Access log entries»): fields separated by spaces, in this order: type, time, elb, client:port,
target:port, request_processing_time, target_processing_time, response_processing_time, ...,
"request", "user_agent", ..., matched_rule_priority, request_creation_time, ... New fields are
added at the end.
"""

import re
from collections.abc import Iterable

import numpy as np

from seawall.errors import ConfigError
from seawall.plan.exports.moments import moment
from seawall.plan.trace import MOST_REQUESTS, Trace

__all__ = ["is_access_log", "read_access_log"]

_FIRST = re.compile(r"(http|https|h2|grpcs|ws|wss) \d{4}-\d\d-\d\dT\S+ \S")
# It comes after a quoted field and the rule's priority, before a quoted one.
_CREATED = re.compile(r'" (?:-1|\d{1,5}|-) (\d{4}-\d\d-\d\dT[\d:.]+Z) "')
_TIMES = ("request_processing_time", "target_processing_time", "response_processing_time")


def is_access_log(line: str) -> bool:
    """It begins as an entry does."""
    return _FIRST.match(line) is not None


def read_access_log(lines: Iterable[str], name: str) -> Trace:
    """Arrivals and durations of its entries.

    A request arrived at its request_creation_time; without one, so much before `time` as its three
    processing times are. Entries are in the order of answers, and files of several nodes come
    after one another: they are sorted. A request took from its arrival to `time`, and at least
    its target_processing_time, which ends with the answer's head while a streamed answer goes on.
    Where no target answered (target_processing_time -1) it is an arrival without a duration.

    Raises ConfigError, which names file, line and field.
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
        words = line.split(" ", 8)
        if len(words) < 9:
            raise ConfigError(f"{name}:{number}: {len(words)} fields; an entry has more")
        ended = moment(words[1])
        if ended is None:
            raise ConfigError(f"{name}:{number}: time: {words[1]!r} is not a time")
        parts = [
            _seconds(word, f"{name}:{number}: {field}")
            for field, word in zip(_TIMES, words[5:8], strict=True)
        ]
        created = _CREATED.search(words[8])
        began = moment(created[1]) if created else ended - sum(max(part, 0.0) for part in parts)
        if began is None or began > ended:
            raise ConfigError(f"{name}:{number}: request_creation_time: not a time before `time`")
        arrivals.append(began)
        if parts[1] >= 0.0:
            durations.append(max(ended - began, parts[1]))
    if not arrivals:
        raise ConfigError(f"{name}: the trace is empty")
    times = np.sort(np.array(arrivals))
    return Trace(
        times - times[0],
        durations=np.array(durations) if durations else None,
        whole=True,
        source="the load balancer's access log",
    )


def _seconds(word: str, where: str) -> float:
    try:
        value = float(word)
    except ValueError:
        raise ConfigError(f"{where}: {word!r} is not a number") from None
    if not -1.0 <= value < 1e6:
        raise ConfigError(f"{where}: {word} is not a time in seconds")
    return value
