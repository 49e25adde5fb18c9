"""Pins of foreign tools: digests in a lock file, so that a changed description is noticed.

A source can change what its tools say of themselves after a person has read it, and models follow
what they read ("tool poisoning").
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile

import msgspec
from msgspec import Struct

from seawall.errors import ConfigError
from seawall.tools.remote import RemoteOperation

__all__ = ["LOCK_FILE", "Pins", "digest", "read_pins", "write_pins"]

LOCK_FILE = "tools.lock"
"""Beside the configuration."""

_VERSION = 1
_encode = msgspec.json.Encoder(order="sorted").encode


class Pins(Struct, frozen=True):
    """The content of a lock file.

    Attributes:
        version: Of the format.
        sources: Digests by the source's name of a tool, by source.
    """

    version: int
    sources: dict[str, dict[str, str]]


def digest(operation: RemoteOperation) -> str:
    """The digest of what a source says of an operation.

    Args:
        operation: As listed, before anything is changed by the configuration.
    """
    said = (
        operation.name,
        operation.description,
        operation.schema,
        operation.output_schema,
        operation.changes,
        operation.aliases,  # method and path of an OpenAPI document's
        operation.address,
    )
    return f"sha256:{hashlib.sha256(_encode(said)).hexdigest()}"


def read_pins(path: Path) -> Pins | None:
    """Read a lock file; None if there is none.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        pins = msgspec.json.decode(path.read_bytes(), type=Pins)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        way_out = "write it anew with: seawall tools lock CONFIG"
        raise ConfigError(f"{path}: {error}; {way_out}") from error
    if pins.version != _VERSION:
        raise ConfigError(f"{path}: its version is {pins.version}, not {_VERSION}")
    return pins


def write_pins(path: Path, sources: Mapping[str, Mapping[str, str]]) -> None:
    """Write a lock file; a reader meanwhile gets the old or the new one.

    Args:
        path: The file.
        sources: See `Pins`.

    Raises:
        OSError: It cannot be written; then it is as it was.
    """
    pins = Pins(_VERSION, {name: dict(each) for name, each in sources.items()})
    text = msgspec.json.format(_encode(pins), indent=2)
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        part = Path(file.name)
        try:
            file.write(text + b"\n")
            file.flush()
            os.fsync(file.fileno())
            part.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
            part.replace(path)
        except BaseException:
            part.unlink()
            raise
