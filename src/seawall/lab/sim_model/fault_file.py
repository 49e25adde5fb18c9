"""Fault scripts as they are written: TOML in a file, JSON over HTTP. Errors name the key."""

import re
import tomllib
from pathlib import Path

import msgspec

from seawall.errors import ConfigError
from seawall.lab.sim_model.faults import FaultScript

__all__ = ["load_faults", "parse_faults"]


def load_faults(path: Path) -> FaultScript:
    """Read a fault script file.

    Raises:
        ConfigError: it cannot be read, or is not a fault script; the message names file and key.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: {error}") from error
    try:
        return msgspec.convert(found, FaultScript)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {_named(error)}") from error


def parse_faults(body: bytes) -> FaultScript:
    """A fault script in JSON.

    Raises:
        ConfigError: it is not one; the message names the key.
    """
    try:
        return msgspec.json.decode(body, type=FaultScript)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(_named(error)) from error


def _named(error: Exception) -> str:
    """`Expected ... - at `$.rules[1].status`` told as `rules[1].status: Expected ...`."""
    said, _, path = str(error).partition(" - at `$")
    where = path.rstrip("`").lstrip(".")
    own = re.match(r"(\w+): ", said) if where else None  # a rule's own check names the field
    if own:
        return f"{where}.{said}"
    return f"{where}: {said}" if where else said
