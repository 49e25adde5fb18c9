"""The documents of a folder."""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from msgspec import Struct

from seawall.errors import ConfigError
from seawall.knowledge.document import has_invisible
from seawall.knowledge.read import MEDIA_TYPES
from seawall.knowledge.settings import KnowledgeSettings

__all__ = ["File", "find_files", "read_file"]

_NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # for the other end of a pipe
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
    for file in _walk(key, top, settings):
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


def _walk(key: str, top: Path, settings: KnowledgeSettings) -> Iterator[File]:
    """Without recursion: folders may be nested arbitrarily deep."""
    folders = [top]
    while folders:
        folder = folders.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            raise ConfigError(f"{key}: {folder} cannot be read: {error.strerror}") from error
        for entry in entries:
            path = PurePosixPath(os.path.relpath(entry.path, top)).as_posix()
            if entry.name.startswith(".") or any(
                fnmatchcase(path, each) for each in settings.exclude
            ):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(Path(entry.path))
            elif (file := _file(key, top, path, entry)) is not None:
                yield file


def _file(key: str, top: Path, path: str, entry: "os.DirEntry[str]") -> File | None:
    """A document; None if it is another file.

    Raises:
        ConfigError: It leads out of the folder, or cannot be a document.
    """
    is_document = PurePosixPath(path).suffix.lower() in MEDIA_TYPES
    try:
        if entry.is_symlink():
            target = Path(entry.path).resolve()
            if target.is_dir() or (is_document and not target.is_relative_to(top.resolve())):
                raise ConfigError(
                    f"{key}: {path} is a link to {target}: only files in {top} are read"
                )
        if not is_document or not entry.is_file():
            return None
        size = entry.stat().st_size
    except RuntimeError as error:  # from `resolve`
        raise ConfigError(f"{key}: {path} is a link to itself") from error
    except OSError as error:
        raise ConfigError(f"{key}: {path} cannot be read: {error.strerror}") from error
    if fault := _fault_of_name(path):
        raise ConfigError(f"{key}: the name {path[:100]!r} {fault}")
    return File(path, size)


def _fault_of_name(path: str) -> str:
    """Why a document cannot be called so; empty if it can."""
    try:
        length = len(path.encode())
    except UnicodeEncodeError:
        return "is not UTF-8 text"
    if length > _MAX_PATH:
        return f"has more than {_MAX_PATH} bytes"
    return "has control or invisible characters" if has_invisible(path) else ""


def read_file(settings: KnowledgeSettings, file: File) -> tuple[bytes, str]:
    """The content of a document, and its digest.

    Args:
        settings: Names the folder.
        file: The document.

    Raises:
        OSError: It cannot be read, or is no file or too large by now.
    """
    opened = os.open(Path(settings.folder, file.path), os.O_RDONLY | _NO_WAIT)
    with os.fdopen(opened, "rb") as content:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            raise OSError(errno.EINVAL, "it is no file any more")
        data = content.read(settings.limits.file_bytes + 1)
    if len(data) > settings.limits.file_bytes:
        raise OSError(errno.EFBIG, "it has more bytes than limits.file_bytes by now")
    return data, hashlib.sha256(data).hexdigest()
