"""Reading a file of measurements or a bill; its content says which it is."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from seawall.errors import ConfigError
from seawall.plan.inputs.compressed import unpacked
from seawall.plan.inputs.measured.compute_optimizer import (
    is_compute_optimizer,
    read_compute_optimizer,
)
from seawall.plan.inputs.measured.findings import Findings
from seawall.plan.inputs.measured.opencost import is_opencost, read_opencost
from seawall.plan.inputs.measured.power_tuning import is_power_tuning, read_power_tuning
from seawall.plan.inputs.measured.usage_report import is_usage_report, read_usage_report
from seawall.plan.inputs.prices import Prices

__all__ = ["read_measured"]

_LARGEST = 64 * 1024 * 1024  # of a JSON document
_LONGEST_LINE = 1_000_000
_KNOWN = (
    "known: results of AWS Lambda Power Tuning (JSON), exports of Compute Optimizer (CSV), "
    "OpenCost's answer to /allocation (JSON), a Cost and Usage Report (CSV)"
)


def read_measured(path: Path, prices: Prices) -> Findings:
    """Read a file.

    Args:
        path: JSON or CSV, perhaps compressed with gzip.
        prices: Of the plan: their region and machines count on a bill.

    Raises:
        ConfigError: It is none of the known kinds, or is invalid; file and field are named.
    """
    try:
        with (
            path.open("rb") as file,
            io.TextIOWrapper(unpacked(file), encoding="utf-8-sig", newline="") as text,
        ):
            return _read(text, path, prices)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ConfigError(f"{path}: gzip: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not text in UTF-8; {_KNOWN}") from None


def _read(text: IO[str], path: Path, prices: Prices) -> Findings:
    first = text.readline(_LONGEST_LINE)
    if first.lstrip().startswith(("{", "[")):
        return _read_json(first + text.read(_LARGEST), path, prices)
    rows = _rows(text, first, str(path))
    _, head = next(rows, (1, {}))
    name = str(path)
    if is_usage_report(head):
        called = f"a Cost and Usage Report ({path.name})"
        return read_usage_report(rows, name, called, prices)
    if is_compute_optimizer(head):
        return read_compute_optimizer(rows, name, f"AWS Compute Optimizer ({path.name})")
    raise ConfigError(f"{path}: unknown; {_KNOWN}")


def _read_json(text: str, path: Path, prices: Prices) -> Findings:
    if len(text) > _LARGEST:
        raise ConfigError(f"{path}: more than {_LARGEST >> 20} MB")
    document = _json(text, str(path))
    # As `aws stepfunctions describe-execution` has it.
    if isinstance(output := document.get("output"), str):
        document = _json(output, f"{path}: output")
    if isinstance(results := document.get("results"), dict):
        document = results
    if is_power_tuning(document):
        called = f"AWS Lambda Power Tuning ({path.name})"
        return read_power_tuning(document, str(path), called)
    if is_opencost(document):
        return read_opencost(document, str(path), f"OpenCost ({path.name})", prices)
    raise ConfigError(f"{path}: unknown JSON; {_KNOWN}")


def _json(text: str, name: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{name}: not JSON: {error}") from None
    return found if isinstance(found, dict) else {}


def _rows(text: IO[str], first: str, name: str) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a table by column, the head first, as names of columns for themselves."""

    def lines() -> Iterator[str]:
        yield first
        while line := text.readline(_LONGEST_LINE):
            if len(line) == _LONGEST_LINE:
                raise ConfigError(f"{name}: a line of more than {_LONGEST_LINE:,} characters")
            yield line

    reader = csv.reader(lines())
    columns: list[str] = []
    try:
        for row in reader:
            if not columns:
                columns = ["".join(c for c in each.lower() if c.isalnum()) for each in row]
                yield reader.line_num, {each: each for each in columns}
            elif row:
                yield reader.line_num, dict(zip(columns, row, strict=False))
    except csv.Error as error:
        raise ConfigError(f"{name}:{reader.line_num}: {error}") from None
