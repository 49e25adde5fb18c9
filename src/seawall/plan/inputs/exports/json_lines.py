"""Tables of one JSON object a line, as k6, vegeta and access logs in JSON are."""

import json
from collections.abc import Iterator
from typing import IO, Any

from seawall.errors import ConfigError
from seawall.plan.inputs.exports.columns import Row, read_table
from seawall.plan.inputs.trace import Trace

__all__ = ["read_json_lines"]

_LONGEST_LINE = 1_000_000


def read_json_lines(first: str, text: IO[str], name: str) -> Trace | None:
    """The trace of a file with an object a line; None if it is one document.

    Args:
        first: The first line.
        text: What comes after it; not read where `first` is no object of its own.
        name: What errors call the file.

    Raises:
        ConfigError: It names file, line and column.
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
    rows = _rows(second, text, name)
    if not k6:
        rows = _with(opening, rows)
    return read_table(head, (_row(*each, head, k6=k6) for each in rows), name)


def _with(
    first: dict[str, Any], rows: Iterator[tuple[int, dict[str, Any]]]
) -> Iterator[tuple[int, dict[str, Any]]]:
    yield 1, first
    yield from rows


def _rows(second: str, text: IO[str], name: str) -> Iterator[tuple[int, dict[str, Any]]]:
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


def _row(line: int, found: dict[str, Any], head: list[str], *, k6: bool) -> Row:
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
