"""Reading a file of recorded traffic: what it is, its content says."""

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any

from seawall.errors import ConfigError
from seawall.plan.inputs.exports.balancer import is_access_log, read_access_log
from seawall.plan.inputs.exports.cloudwatch import read_metric_data, read_metric_statistics
from seawall.plan.inputs.exports.columns import read_columns
from seawall.plan.inputs.exports.haproxy import is_haproxy_log, read_haproxy_log
from seawall.plan.inputs.exports.json_lines import read_json_lines
from seawall.plan.inputs.exports.prometheus import read_prometheus
from seawall.plan.inputs.trace import Trace

__all__ = ["read_trace"]

_LONGEST_LINE = 1_000_000
_LARGEST_DOCUMENT = 256 * 1024 * 1024


def read_trace(path: Path) -> Trace:
    """Arrivals, and what else the file says of them.

    A table (CSV, TSV, JSON lines), Prometheus's answer to a range query, CloudWatch's to
    get-metric-statistics or get-metric-data, or a log of an Application Load Balancer or HAProxy;
    each may be packed by gzip. Raises ConfigError, which names file, line and field.
    """
    try:
        with path.open("rb") as file:
            packed = file.peek(2)[:2] == b"\x1f\x8b"
            opened: Any = gzip.GzipFile(fileobj=file) if packed else file
            with io.TextIOWrapper(opened, encoding="utf-8-sig", newline="") as text:
                return _read(text, str(path))
    except (gzip.BadGzipFile, EOFError) as error:
        raise ConfigError(f"{path}: gzip: {error}") from None
    except (OSError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path}: cannot be read: {reason}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not text in UTF-8") from None


def _read(text: IO[str], name: str) -> Trace:
    first = text.readline(_LONGEST_LINE)
    if first.lstrip().startswith("{") and (rows := read_json_lines(first, text, name)):
        return rows
    if first.lstrip().startswith(("{", "[")):
        return _read_json(first + text.read(_LARGEST_DOCUMENT), name)
    lines = chain([first] if first else [], _lines(text, name))
    if is_access_log(first):
        return read_access_log(lines, name)
    if is_haproxy_log(first):
        return read_haproxy_log(lines, name)
    return read_columns(lines, name)


def _lines(text: IO[str], name: str) -> Iterator[str]:
    number = 1
    while line := text.readline(_LONGEST_LINE):
        number += 1
        if len(line) == _LONGEST_LINE:
            raise ConfigError(f"{name}:{number}: longer than {_LONGEST_LINE:,} characters")
        yield line


def _read_json(text: str, name: str) -> Trace:
    if len(text) > _LARGEST_DOCUMENT:
        raise ConfigError(f"{name}: more than {_LARGEST_DOCUMENT >> 20} MB: export less time")
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{name}:{error.lineno}: not JSON: {error.msg}") from None
    except ValueError as error:  # a whole number of thousands of digits
        raise ConfigError(f"{name}: not JSON: {error}") from None
    except RecursionError:
        raise ConfigError(f"{name}: not JSON that anybody exports: too deep") from None
    keys = set(document) if isinstance(document, dict) else set()
    if "MetricDataResults" in keys:
        return read_metric_data(document, name)
    if "Datapoints" in keys:
        return read_metric_statistics(document, name)
    if "data" in keys or "status" in keys:
        return read_prometheus(document, name)
    raise ConfigError(
        f"{name}: unknown JSON; known: Prometheus's range query (data), CloudWatch's"
        " get-metric-statistics (Datapoints) and get-metric-data (MetricDataResults)"
    )
