"""Access logs in the common and the combined format, as nginx, Apache and API Gateway write them.

https://httpd.apache.org/docs/2.4/logs.html#common: `host ident user [time] "request" status bytes`,
then in the combined format `"referer" "user agent"`, and what the administrator adds. Apache's time
is that of the arrival; nginx's (https://nginx.org/en/docs/http/ngx_http_log_module.html) that of
the end. nginx's `$request_time` is in seconds with milliseconds: `rt=0.874`, `request_time=0.874`,
or a field of its own with three decimals, are read as that. Apache's `%D` and `%T`, whole numbers,
cannot be told apart and are not read.
"""

import re
from collections.abc import Iterable

import numpy as np

from seawall.errors import ConfigError
from seawall.plan.inputs.exports.trace import MOST_REQUESTS, Trace, start_of, within_seconds
from seawall.plan.inputs.exports.units import parse_date

__all__ = ["is_common_log", "read_common_log"]

_ENTRY = re.compile(r'\S+ .{0,300}?\[(\d\d/[A-Za-z]{3}/\d{4}:[\d:.]+ [+-]\d{4})\] "')
_NAMED = re.compile(r'(?<= )(?:rt|request_time|req_time)="?(\d{1,6}\.\d{3})(?=["\s,])')
_ALONE = re.compile(r"(?<= )(\d{1,6}\.\d{3})(?=\s|$)")


def is_common_log(line: str) -> bool:
    """Whether a line is an entry of such a log."""
    return _ENTRY.match(line) is not None


def read_common_log(lines: Iterable[str], name: str) -> Trace:
    """Read arrivals, and durations where the log has `$request_time`.

    Raises:
        ConfigError: File and line are named.
    """
    times: list[float] = []
    durations: list[float] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        entry = _ENTRY.match(line)
        when = None if entry is None else parse_date(entry[1])
        if entry is None or when is None:
            raise ConfigError(f"{name}:{number}: not an entry of an access log: {line[:40]!r}")
        if len(times) == MOST_REQUESTS:
            raise ConfigError(f"{name}:{number}: more than {MOST_REQUESTS:,} requests")
        times.append(when)
        took = _NAMED.search(line, entry.end()) or _ALONE.search(line, line.rfind('"') + 1)
        durations.append(float(took[1]) if took else float("nan"))
    took_each = np.array(durations)
    known = np.isfinite(took_each)
    arrivals = within_seconds(np.array(times)) - np.where(known, took_each, 0.0)
    arrivals.sort()
    return Trace(
        arrivals - arrivals[0],
        durations=took_each[known] if known.any() else None,
        whole=True,
        start=start_of(arrivals),
        source="an access log" + ("" if known.any() else ", without durations"),
    )
