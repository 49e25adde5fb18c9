"""Rows of a table: their cells as text and numbers."""

from collections.abc import Sequence

from msgspec import Struct

from seawall.errors import ConfigError

__all__ = ["Row", "cell", "first_of", "number", "plain_name"]


class Row(Struct, frozen=True):
    """The cells of a row, and the number of its line."""

    line: int
    cells: list[str]


def cell(row: Row, column: int) -> str:
    """A cell; empty where the row is too short."""
    return row.cells[column] if column < len(row.cells) else ""


def plain_name(word: str) -> str:
    """The name of a column in lower case without punctuation, as it is compared."""
    return "".join(c for c in word.lower() if c.isalnum() or c == "@")


def first_of(names: Sequence[str], words: Sequence[str]) -> int | None:
    """The index in `words` of the first of the names that is there. None: none is."""
    return next((words.index(each) for each in names if each in words), None)


def number(text: str, where: str) -> float:
    """Parse a number that is not negative. Raises ConfigError, naming `where`."""
    try:
        value = float(text)
    except ValueError:
        raise ConfigError(f"{where}: {text[:40]!r} is not a number") from None
    if not 0 <= value < float("inf"):
        raise ConfigError(f"{where}: {text[:40]} is not a positive number")
    return value
