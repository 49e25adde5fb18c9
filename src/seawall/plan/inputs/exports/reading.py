"""Reading a file of recorded traffic; its content says which format it is."""

import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any

from seawall.errors import ConfigError
from seawall.plan.inputs.compressed import unpacked
from seawall.plan.inputs.exports.access_logs import (
    is_access_log,
    is_haproxy_log,
    read_access_log,
    read_haproxy_log,
)
from seawall.plan.inputs.exports.columns import read_columns, read_table
from seawall.plan.inputs.exports.common_logs import is_common_log, read_common_log
from seawall.plan.inputs.exports.json_tables import (
    read_insights,
    read_json_lines,
    read_log_events,
    read_objects,
)
from seawall.plan.inputs.exports.metrics import (
    read_metric_data,
    read_metric_statistics,
    read_prometheus,
)
from seawall.plan.inputs.exports.rows import Row
from seawall.plan.inputs.exports.tools import unusable_text
from seawall.plan.inputs.exports.trace import Trace

__all__ = ["read_recording", "read_trace"]

_LONGEST_LINE = 1_000_000
_LARGEST_DOCUMENT = 256 * 1024 * 1024

# The first bytes of files that are not text, and what to do.
_NOT_TEXT = (
    (b"PK\x03\x04", "a zip archive or an Excel workbook; unpack it, or export it as CSV"),
    (b"PAR1", "Parquet; export it as CSV or JSON lines"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it, or use gzip"),
    (b"BZh", "compressed with bzip2; unpack it, or use gzip"),
    (b"\xfd7zXZ", "compressed with xz; unpack it, or use gzip"),
    (b"SQLite format 3", "a SQLite database; export the table as CSV"),
    (b"\xff\xfe", "text in UTF-16; convert it: iconv -f UTF-16 -t UTF-8"),
    (b"\xfe\xff", "text in UTF-16; convert it: iconv -f UTF-16 -t UTF-8"),
)
# Keys by which a JSON document of a known tool without arrivals is known.
_UNUSABLE = (
    ({"metrics", "root_group"}, "k6's summary has no times; give k6 run --out csv=FILE"),
    ({"latencies", "throughput"}, "vegeta's report has no times; give vegeta encode --to csv"),
    ({"aggregate", "intermediate"}, "Artillery's report has no times of requests"),
    ({"summary", "responseTimeHistogram"}, "oha's summary has no times; use --output-format csv"),
    ({"num_requests", "response_times"}, "Locust's statistics; give its ..._stats_history.csv"),
)  # fmt: skip


def read_trace(path: Path) -> Trace:
    """Read a trace from a file; see `read_recording`.

    Raises:
        ConfigError: File, line and field are named.
    """
    try:
        with path.open("rb") as file:
            return read_recording(file, str(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def read_recording(file: IO[bytes], name: str) -> Trace:
    """Read a trace.

    A table (CSV, TSV, JSON), Prometheus's answer to a range query, CloudWatch's to
    get-metric-statistics, get-metric-data or get-query-results, an access log in the common format,
    of an Application Load Balancer, of CloudFront or of HAProxy; each may be compressed with gzip.

    Args:
        file: Its bytes.
        name: Of the file, for errors.

    Raises:
        ConfigError: File, line and field are named.
    """
    try:
        opened = unpacked(file)
        start = opened.read(4_096)
        opened.seek(0)
        _check_text(start, name)
        with io.TextIOWrapper(opened, encoding="utf-8-sig", newline="") as text:
            return _read(text, name)
    except (gzip.BadGzipFile, EOFError) as error:
        raise ConfigError(f"{name}: gzip: {error}") from None
    except zlib.error as error:
        raise ConfigError(f"{name}: cannot be read: {error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{name}: is not text in UTF-8") from None


def _check_text(start: bytes, name: str) -> None:
    for magic, what in _NOT_TEXT:
        if start.startswith(magic):
            raise ConfigError(f"{name}: is {what}")
    if b"\0" in start:
        raise ConfigError(f"{name}: is not text in UTF-8: it has NUL bytes")


def _read(text: IO[str], name: str) -> Trace:
    first = text.readline(_LONGEST_LINE)
    if first.lstrip().startswith("{") and (opening := _first_object(first)) is not None:
        second, number = text.readline(_LONGEST_LINE), 2
        while second and not second.strip():
            second, number = text.readline(_LONGEST_LINE), number + 1
        if second:
            rest = enumerate(chain([second], _lines(text, name, number)), start=number)
            return read_json_lines(opening, rest, name)
        return _read_document(opening, name)
    if first.lstrip().startswith(("{", "[")) and not is_common_log(first):
        return _read_json(first + text.read(_LARGEST_DOCUMENT), name)
    if (reason := unusable_text(first)) is not None:
        raise ConfigError(f"{name}: {reason}")
    lines = chain([first] if first else [], _lines(text, name, 1))
    if first.startswith("#"):
        return _read_w3c(lines, name)
    for is_one, read in (
        (is_access_log, read_access_log),
        (is_haproxy_log, read_haproxy_log),
        (is_common_log, read_common_log),
    ):
        if is_one(first):
            return read(lines, name)
    return read_columns(lines, name)


def _first_object(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _lines(text: IO[str], name: str, number: int) -> Iterator[str]:
    """The lines after the one with this number."""
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
    return _read_document(document, name)


def _read_document(document: object, name: str) -> Trace:
    if isinstance(document, list) and document and isinstance(document[0], dict):
        _check_known(set(document[0]), name)
        for at, each in enumerate(document):
            if not isinstance(each, dict):
                raise ConfigError(f"{name}: {at}: not a JSON object")
        return read_objects(enumerate(document), name)
    found: dict[str, Any] = document if isinstance(document, dict) else {}
    if "MetricDataResults" in found:
        return read_metric_data(found, name)
    if "Datapoints" in found:
        return read_metric_statistics(found, name)
    if "results" in found:
        return read_insights(found, name)
    if "events" in found:
        return read_log_events(found, name)
    _check_known(set(found), name)
    if "data" in found or "status" in found:
        return read_prometheus(found, name)
    raise ConfigError(
        f"{name}: unknown JSON; known: Prometheus's range query (data), CloudWatch's"
        " get-metric-statistics (Datapoints), get-metric-data (MetricDataResults) and"
        " get-query-results (results), filter-log-events (events), an array of objects, and an"
        " object on each line"
    )


def _check_known(keys: set[str], name: str) -> None:
    for known, reason in _UNUSABLE:
        if known <= keys:
            raise ConfigError(f"{name}: {reason}")


def _read_w3c(lines: Iterable[str], name: str) -> Trace:
    """Read CloudFront's log in W3C's extended format: directives, then fields between tabs."""
    head: list[str] = []
    number = 0
    found = iter(lines)
    for line in found:
        number += 1
        if line.startswith("#Fields:"):
            head = line.removeprefix("#Fields:").split()
            break
        if not line.startswith("#"):
            break
    if "x-edge-location" not in head:
        raise ConfigError(
            f"{name}:{number}: not a log of CloudFront (#Fields: date time x-edge-location ...); "
            "of logs in W3C's format only that is read"
        )
    rows = (
        Row(at, line.rstrip("\r\n").split("\t"))
        for at, line in enumerate(found, start=number + 1)
        if line.strip() and not line.startswith("#")
    )
    return read_table(head, rows, name)
