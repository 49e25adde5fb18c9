"""Numbers and files on the command line: each option says which it takes."""

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path

from seawall.errors import ConfigError

__all__ = ["number", "plural", "whole", "writable"]


def whole(low: int, high: int) -> Callable[[str], int]:
    """The type of an option that is a whole number from `low` to `high`."""

    def read(text: str) -> int:
        try:
            value = int(text) if len(text) <= 30 else None
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(
                f"must be a whole number from {low} to {high}, not {text[:40]!r}"
            )
        return value

    return read


def number(low: float, high: float, *, above: bool = False) -> Callable[[str], float]:
    """The type of an option that is a number from `low` to `high`; above: more than `low`."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high or (above and value == low):
            least = f"more than {low:g} and at most" if above else f"from {low:g} to"
            raise argparse.ArgumentTypeError(
                f"must be a number {least} {high:g}, not {text[:40]!r}"
            )
        return value

    return read


def plural(count: int, what: str) -> str:
    """`1 turn`, `2 turns`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def writable(given: Path, option: str) -> Path:
    """Where something is to be written at the end: looked at before anything is measured."""
    path = given.resolve()
    if path.is_dir():
        raise ConfigError(f"{option}: {given} is a folder; name a file")
    if not path.parent.is_dir():
        raise ConfigError(f"{option}: {given} cannot be written: there is no {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigError(f"{option}: {given} cannot be written: it is not permitted")
    return path
