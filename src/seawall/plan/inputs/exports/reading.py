"""Reading a file of recorded traffic; its content says which format it is."""

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any

from seawall.errors import ConfigError
from seawall.plan.inputs.exports.access_logs import (
    is_access_log,
    is_haproxy_log,
    read_access_log,
    read_haproxy_log,
)
from seawall.plan.inputs.exports.columns import Row, read_columns, read_table
from seawall.plan.inputs.exports.metrics import (
    read_metric_data,
    read_metric_statistics,
    read_prometheus,
)
from seawall.plan.inputs.exports.trace import Trace

__all__ = ["read_trace"]

_LONGEST_LINE = 1_000_000
_LARGEST_DOCUMENT = 256 * 1024 * 1024


def read_trace(path: Path) -> Trace:
    """Read a trace from a file.

    A table (CSV, TSV, JSON lines), Prometheus's answer to a range query, CloudWatch's to
    get-metric-statistics or get-metric-data, or a log of an Application Load Balancer or HAProxy;
    each may be compressed with gzip.

    Raises:
        ConfigError: File, line and field are named.
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
    if first.lstrip().startswith("{") and (rows := _read_json_lines(first, text, name)):
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
        raise ConfigError(f"{name}: not a known export: JSON nested too deep") from None
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


def _read_json_lines(first: str, text: IO[str], name: str) -> Trace | None:
    """Read a file with one JSON object a line, as k6, vegeta and JSON access logs; None: it is not.

    Args:
        first: The first line.
        text: The rest; not read where `first` is not an object.
        name: Of the file, for errors.
    """
    try:
        opening = json.loads(first)
    except (ValueError, RecursionError):
        return None
    if not isinstance(opening, dict) or not (second := text.readline(_LONGEST_LINE)).strip():
        text.seek(0)
        text.readline(_LONGEST_LINE)
        return None
    if opening.get("type") == "Metric" and "metric" in opening:
        head = ["metric_name", "timestamp", "metric_value"]
    else:
        head = [key for key, value in opening.items() if not isinstance(value, dict | list)]
    k6 = head[0] == "metric_name" if head else False
    rows: Iterator[tuple[int, dict[str, Any]]] = _objects(second, text, name)
    if not k6:
        rows = chain([(1, opening)], rows)
    return read_table(head, (_object_row(*each, head, k6=k6) for each in rows), name)


def _objects(second: str, text: IO[str], name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    number, line = 2, second
    while line:
        if len(line) == _LONGEST_LINE:
            raise ConfigError(f"{name}:{number}: longer than {_LONGEST_LINE:,} characters")
        if line.strip():
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                raise ConfigError(f"{name}:{number}: not JSON") from None
            if not isinstance(found, dict):
                raise ConfigError(f"{name}:{number}: not a JSON object")
            yield number, found
        line = text.readline(_LONGEST_LINE)
        number += 1


def _object_row(line: int, found: dict[str, Any], head: list[str], *, k6: bool) -> Row:
    if k6:
        data = found.get("data")
        sample = data if isinstance(data, dict) and found.get("type") == "Point" else {}
        found = {
            "metric_name": found.get("metric") if sample else "",
            "timestamp": sample.get("time"),
            "metric_value": sample.get("value"),
        }
    cells = (found.get(key) for key in head)
    return Row(line, ["" if each is None else str(each) for each in cells])
