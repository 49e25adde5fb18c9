"""Questions that were really asked, from a file: JSON, CSV or plain lines."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from seawall.errors import ConfigError

__all__ = ["read_questions"]

_NAMES = ("reason_for_call", "text", "question", "message", "prompt", "user", "utterance", "query")
_LONGEST = 16_000


def read_questions(path: Path, column: str = "") -> list[str]:
    """The questions of a file, in order.

    Of a CSV file (`.csv`): those of the column, or of one with a usual name. Of JSON (`.json`):
    those of the fields with that name, wherever they are; a list of texts is one of questions.
    Else every line is a question.

    Raises:
        ConfigError: it names the file and what is missing.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not text in UTF-8") from None
    if path.suffix == ".csv":
        found = _of_csv(text, column, str(path))
    elif path.suffix == ".json":
        found = _of_json(text, column, str(path))
    else:
        found = text.splitlines()
    questions = [each.strip()[:_LONGEST] for each in found if each.strip()]
    if not questions:
        raise ConfigError(f"{path}: there are no questions in it")
    return questions


def _of_csv(text: str, column: str, name: str) -> list[str]:
    table = csv.DictReader(text.splitlines(keepends=True))
    head = list(table.fieldnames or [])
    wanted = [column] if column else list(_NAMES)
    key = next((each for each in wanted if each in head), None)
    if key is None:
        raise ConfigError(
            f"{name}:1: no column {' or '.join(wanted)}; there are: {', '.join(head)}"
        )
    return [row[key] or "" for row in table]


def _of_json(text: str, column: str, name: str) -> list[str]:
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{name}:{error.lineno}: {error.msg}") from None
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
