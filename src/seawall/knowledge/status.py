"""Whether an index can be searched, and whether it still fits its folder and settings."""

import sqlite3
from contextlib import closing
from pathlib import Path

from msgspec import Struct

from seawall.errors import ConfigError
from seawall.knowledge.folder import find_files, read_file
from seawall.knowledge.index_file import (
    IndexedFile,
    connect,
    indexed_files,
    read_note,
    reporting_damage,
)
from seawall.knowledge.settings import KnowledgeSettings

__all__ = ["IndexState", "check_index"]

_MOST_NAMED = 3
_COUNTS = "SELECT count(*), count(*) FILTER (WHERE fault != '') FROM files"


class IndexState(Struct, frozen=True):
    """What is wrong with an index.

    Attributes:
        fault: Why it cannot be searched; empty if it can.
        stale: How it differs from its folder or its settings; empty if it does not.
        detail: What it has.
        advice: What to do about what is wrong.
    """

    fault: str = ""
    stale: str = ""
    detail: str = ""
    advice: str = ""

    @property
    def summary(self) -> str:
        """What is wrong, and what to do about it, as one line."""
        wrong = self.fault or self.stale
        return f"{wrong}; build it: {self.advice}" if self.advice else wrong


def check_index(
    name: str, settings: KnowledgeSettings, *, compare: bool = True, contents: bool = False
) -> IndexState:
    """Check the index of a table.

    Args:
        name: NAME of the table `[knowledge.NAME]`.
        settings: The table.
        compare: Whether the folder is looked at, if it is there: paths and sizes.
        contents: Whether the contents of documents are compared as well.
    """
    path = Path(settings.index)
    build = f"seawall knowledge build {name}"
    try:
        with reporting_damage(), closing(connect(path)) as opened:
            note = read_note(opened)
            documents, unreadable = opened.execute(_COUNTS).fetchone()
            (passages,) = opened.execute("SELECT count(*) FROM passages").fetchone()
            compare = compare and Path(settings.folder).is_dir()
            files = indexed_files(opened) if compare else []
    except FileNotFoundError:
        return IndexState(fault=f"there is no index {path}", advice=build)
    except OSError as error:
        return IndexState(fault=f"{path} cannot be read: {error.strerror}")
    except sqlite3.Error as error:
        return IndexState(fault=f"{path} {error}", advice=build)
    if settings.embeddings and not note.embeddings:
        return IndexState(fault=f"{path} has no embeddings", advice=build)
    differing = note.differs_from(settings)
    if not differing and compare:
        try:
            differing = _changed(f"knowledge.{name}", settings, files, contents=contents)
        except ConfigError as error:
            return IndexState(stale=f"the folder cannot be compared: {error}")
    stale = f"{path} is stale: {', '.join(differing)} changed" if differing else ""
    detail = f"{documents - unreadable:,} documents, {passages:,} passages"
    if unreadable:
        detail += f"; {unreadable:,} documents could not be read and are left out"
    return IndexState(stale=stale, detail=detail, advice=build if stale else "")


def _changed(
    key: str, settings: KnowledgeSettings, files: list[IndexedFile], *, contents: bool
) -> list[str]:
    """The documents that were added, removed or changed, the first by their names."""
    known = {each.path: each for each in files}
    now = {each.path: each for each in find_files(key, settings)}
    found = sorted(known.keys() ^ now.keys())
    for path in sorted(known.keys() & now.keys()):
        if known[path].size != now[path].size:
            found.append(path)
        elif contents:
            try:
                changed = read_file(settings, now[path])[1] != known[path].digest
            except OSError:
                changed = True
            found += [path] * changed
    more = [f"{len(found) - _MOST_NAMED:,} more documents"] * (len(found) > _MOST_NAMED)
    return found[:_MOST_NAMED] + more
