"""Reads questions from a file: CSV, TSV, JSON, JSON Lines or plain text."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from seawall.errors import ConfigError

__all__ = ["read_questions"]

_NAMES = ("reason_for_call", "text", "question", "message", "prompt", "user", "utterance", "query")
_LONGEST = 16_000
_DELIMITERS = {".csv": ",", ".tsv": "\t"}


def read_questions(path: Path, column: str = "") -> list[str]:
    """The questions of a file, in order.

    In a table (`.csv`, `.tsv`) they are in one column; in JSON (`.json`, `.jsonl`) in fields with
    one name at any depth, or a list of strings; in any other file every line is one.

    Args:
        path: The file.
        column: Name of the column or field; "" for the first of the usual names that is present.

    Raises:
        ConfigError: The file cannot be read, or has no questions.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not text in UTF-8") from None
    suffix = path.suffix.lower()
    if suffix in _DELIMITERS:
        found = _of_table(text, _DELIMITERS[suffix], column, str(path))
    elif suffix == ".json":
        found = _of_document(_parsed(text, str(path), 1), column, str(path))
    elif suffix == ".jsonl":
        # Not splitlines: JSON strings may contain a line separator (U+2028).
        lines = enumerate(text.split("\n"), 1)
        documents = [_parsed(line, str(path), at) for at, line in lines if line.strip()]
        found = _of_document(documents, column, str(path))
    else:
        found = text.splitlines()
    questions = [each.strip()[:_LONGEST] for each in found if each.strip()]
    if not questions:
        raise ConfigError(f"{path}: has no questions")
    return questions


def _of_table(text: str, delimiter: str, column: str, name: str) -> list[str]:
    table = csv.DictReader(text.splitlines(keepends=True), delimiter=delimiter)
    try:
        head = list(table.fieldnames or [])
        wanted = [column] if column else list(_NAMES)
        key = next((each for each in wanted if each in head), None)
        if key is None:
            raise ConfigError(
                f"{name}:1: no column {' or '.join(wanted)}; there are: {', '.join(head)}"
            )
        return [row[key] or "" for row in table]
    except csv.Error as error:
        raise ConfigError(f"{name}:{table.reader.line_num}: {error}") from None


def _parsed(text: str, name: str, line: int) -> object:
    """The JSON document that begins at a line of the file."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{name}:{line + error.lineno - 1}: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; too deep
        raise ConfigError(f"{name}:{line}: is not JSON: {error}") from None


def _of_document(document: object, column: str, name: str) -> list[str]:
    if isinstance(document, list) and all(isinstance(each, str) for each in document):
        return document
    for wanted in [column] if column else _NAMES:
        if found := list(_fields(document, wanted)):
            return found
    raise ConfigError(f"{name}: no field {column or ' or '.join(_NAMES)} with a text in it")


def _fields(value: object, wanted: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, each in value.items():
            if key == wanted and isinstance(each, str):
                yield each
            elif key == wanted and isinstance(each, list):
                yield from (text for text in each if isinstance(text, str))
            else:
                yield from _fields(each, wanted)
    elif isinstance(value, list):
        for each in value:
            yield from _fields(each, wanted)
