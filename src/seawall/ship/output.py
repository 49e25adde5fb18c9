"""Output folder: files that are generated repeatedly and may be edited in between, and YAML text.

What was written is recorded beside the files, by digest. A file that differs from both its record
and its new content was edited, and is not overwritten.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from seawall.errors import ConfigError

__all__ = ["RECORD", "write_files", "yaml_text"]

RECORD = ".seawall-ship.json"
"""The record's name: digests by path, relative to the folder."""

_MOST_NAMED = 10


def write_files(out: Path, files: Mapping[str, bytes], *, force: bool = False) -> list[Path]:
    """Write all of the files, or none; unedited files of an earlier run are removed.

    Args:
        out: The folder; created if it is missing.
        files: Contents by path, relative to the folder.
        force: Overwrite edited files as well.

    Returns:
        All files, whether or not their content has changed.

    Raises:
        ConfigError: A file was edited, or the folder cannot be written.
    """
    try:
        recorded = _read_record(out)
        edited = [
            name
            for name in sorted({*files, *recorded})
            if _was_edited(out / name, files.get(name), recorded.get(name))
        ]
        if edited and not force:
            named = ", ".join(edited[:_MOST_NAMED]) + (" ..." if len(edited) > _MOST_NAMED else "")
            raise ConfigError(
                f"{out}: edited since seawall ship wrote them, or not written by it: {named}; "
                "write to another --out, or overwrite them with --force"
            )
        for name in recorded.keys() - files.keys():
            if name not in edited:
                (out / name).unlink(missing_ok=True)
        for name, content in files.items():
            path = out / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        digests = {name: _sha256(content) for name, content in sorted(files.items())}
        (out / RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(digests)))
    except OSError as error:
        raise ConfigError(f"{error.filename or out}: {error.strerror}") from error
    return [out / name for name in files]


def _was_edited(path: Path, wanted: bytes | None, recorded: str | None) -> bool:
    """Whether overwriting or removing the file would lose an edit.

    Args:
        path: The file.
        wanted: Its new content; None if it is to be removed.
        recorded: The digest of what was written last; None if it was not written.
    """
    if path.is_symlink():
        return True
    try:
        found = path.read_bytes()
    except FileNotFoundError:
        return False
    return found != wanted and _sha256(found) != recorded


def _read_record(out: Path) -> dict[str, str]:
    try:
        found = msgspec.json.decode((out / RECORD).read_bytes(), type=dict[str, str])
    except FileNotFoundError:
        return {}
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}  # so every file that is there counts as edited
    within = out.resolve()
    return {name: each for name, each in found.items() if _is_within(within, out / name)}


def _is_within(folder: Path, path: Path) -> bool:
    return path.resolve().is_relative_to(folder)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def yaml_text(value: Mapping[str, Any] | Sequence[Mapping[str, Any]], indent: int = 0) -> str:
    """Format as YAML: block style for tables, JSON, which is YAML, for everything else.

    Args:
        value: A table, or a list of tables.
        indent: Spaces before each line.
    """
    space = " " * indent
    if not isinstance(value, Mapping):
        return "".join(
            f"{space}- {yaml_text(each, indent + 2).removeprefix(space + '  ')}" for each in value
        )
    lines: list[str] = []
    for key, each in value.items():
        tables = isinstance(each, list) and bool(each) and all(isinstance(x, dict) for x in each)
        if (isinstance(each, Mapping) and each) or tables:
            lines.append(f"{space}{key}:\n{yaml_text(each, indent + 2)}")
        else:
            lines.append(f"{space}{key}: {json.dumps(each)}\n")
    return "".join(lines)
