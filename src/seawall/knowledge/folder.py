"""The documents of a folder."""

import hashlib
import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from msgspec import Struct

from seawall.errors import ConfigError
from seawall.knowledge.read import MEDIA_TYPES
from seawall.knowledge.settings import KnowledgeSettings

__all__ = ["File", "find_files", "read_file"]

_MAX_PATH = 512  # bytes; a source has it, and is stored with each result


class File(Struct, frozen=True):
    """A document in the folder.

    Attributes:
        path: Relative to the folder, with slashes.
        size: In bytes.
    """

    path: str
    size: int


def find_files(key: str, settings: KnowledgeSettings) -> list[File]:
    """The documents of a folder, by their paths; hidden files and folders are left out.

    Args:
        key: The table of the settings, for errors.
        settings: Names the folder.

    Raises:
        ConfigError: There is no such folder, a link leads out of it, or something is too large.
    """
    top = Path(settings.folder)
    if not top.is_dir():
        raise ConfigError(f"{key}.folder: there is no folder {top}")
    found: list[File] = []
    for file in _walk(key, top, top, settings):
        if file.size > settings.limits.file_bytes:
            raise ConfigError(
                f"{key}: {file.path} has {file.size:,} bytes; limits.file_bytes is "
                f"{settings.limits.file_bytes:,}"
            )
        found.append(file)
        if len(found) > settings.limits.files:
            raise ConfigError(
                f"{key}: {top} has more documents than limits.files, {settings.limits.files:,}"
            )
    return sorted(found, key=lambda each: each.path)


def _walk(key: str, top: Path, folder: Path, settings: KnowledgeSettings) -> Iterator[File]:
    try:
        entries = sorted(os.scandir(folder), key=lambda each: each.name)
    except OSError as error:
        raise ConfigError(f"{key}: {folder} cannot be read: {error.strerror}") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        path = PurePosixPath(Path(entry.path).relative_to(top)).as_posix()
        if any(fnmatchcase(path, each) for each in settings.exclude):
            continue
        is_document = PurePosixPath(path).suffix.lower() in MEDIA_TYPES
        if entry.is_symlink():
            target = Path(entry.path).resolve()
            if target.is_dir() or (is_document and not target.is_relative_to(top.resolve())):
                raise ConfigError(
                    f"{key}: {path} is a link to {target}: only files in {top} are read"
                )
        if entry.is_dir():
            yield from _walk(key, top, Path(entry.path), settings)
        elif is_document and entry.is_file():
            if fault := _fault_of_name(path):
                raise ConfigError(f"{key}: the name {path[:100]!r} {fault}")
            yield File(path, entry.stat().st_size)


def _fault_of_name(path: str) -> str:
    """Why a document cannot be called so; empty if it can."""
    try:
        length = len(path.encode())
    except UnicodeEncodeError:
        return "is not UTF-8 text"
    return f"has more than {_MAX_PATH} bytes" if length > _MAX_PATH else ""


def read_file(settings: KnowledgeSettings, file: File) -> tuple[bytes, str]:
    """The content of a document, and its digest.

    Args:
        settings: Names the folder.
        file: The document.

    Raises:
        OSError: It cannot be read.
    """
    data = Path(settings.folder, file.path).read_bytes()
    return data, hashlib.sha256(data).hexdigest()
