"""The index of a folder: an SQLite file with a full-text index (FTS5), and vectors if configured.

The file is written once and replaced as a whole, so that it is opened immutable: readers need no
locks and no permission to write, and as many processes as like share it.
"""

import errno
import os
import secrets
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec
from msgspec import Struct

from seawall.errors import ConfigError
from seawall.knowledge.settings import KnowledgeSettings

__all__ = [
    "FORMAT",
    "SCHEMA",
    "TOKENIZERS",
    "IndexNote",
    "IndexedFile",
    "checked_row",
    "connect",
    "indexed_files",
    "read_common",
    "read_note",
    "reporting_damage",
    "signature",
    "writing",
]

T = TypeVar("T")

FORMAT = 2
"""Of the file; an index of another one is built anew."""

TOKENIZERS = {
    "unicode": "unicode61 remove_diacritics 2 categories 'L* N* Co M*'",
    "porter": "porter unicode61 remove_diacritics 2 categories 'L* N* Co M*'",
    "trigram": "trigram",
}
"""FTS5's names of the settings' tokenizers. Marks (M) are of words: vowels of Hindi are marks."""

_APPLICATION = 0x5EA0A11  # marks the file as one of ours
_APPLICATION_ENDS = 72  # bytes of the file
_CACHE_KIB = 4_096

SCHEMA = """
CREATE TABLE note (value TEXT NOT NULL, common TEXT NOT NULL);
CREATE TABLE files (
    id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, digest TEXT NOT NULL,
    parser TEXT NOT NULL, title TEXT NOT NULL, fault TEXT NOT NULL
);
CREATE TABLE passages (
    id INTEGER PRIMARY KEY, file INTEGER NOT NULL, section TEXT NOT NULL, anchor TEXT NOT NULL,
    text TEXT NOT NULL
);
CREATE TABLE vectors (passage INTEGER PRIMARY KEY, value BLOB NOT NULL);
CREATE VIRTUAL TABLE words USING fts5(heading, text, content='', tokenize="{tokenizer}");
"""


class IndexNote(Struct, frozen=True):
    """What an index was built with; one that was built with something else does not fit.

    Attributes:
        format: Of the file.
        passage_characters: As in the settings.
        overlap_characters: As in the settings.
        tokenizer: As in the settings.
        embeddings: Digest of the embedding model; empty for none.
    """

    format: int
    passage_characters: int
    overlap_characters: int
    tokenizer: str
    embeddings: str

    def differs_from(self, settings: KnowledgeSettings) -> list[str]:
        """The settings that it was built with other values of; the model is not compared."""
        names = ["passage_characters", "overlap_characters", "tokenizer"]
        found = [each for each in names if getattr(self, each) != getattr(settings, each)]
        return found + ["embeddings"] * (bool(self.embeddings) != settings.embeddings)


class IndexedFile(Struct, frozen=True):
    """A document that is indexed.

    Attributes:
        id: Its row.
        path: Relative to the folder.
        size: In bytes.
        digest: SHA-256 of its content.
        parser: What it was read by.
        title: Its title.
        fault: Why it could not be read; empty if it could.
    """

    id: int
    path: str
    size: int
    digest: str
    parser: str
    title: str
    fault: str


def signature(path: Path) -> tuple[int, int, int]:
    """What changes when the file is replaced.

    Raises:
        OSError: There is none.
    """
    found = path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size


def connect(path: Path) -> sqlite3.Connection:
    """Open an index for reading; the connection may be used by one thread at a time.

    Raises:
        sqlite3.Error: It is damaged, or no index of this format.
        OSError: It is missing, or not readable.
    """
    with _open_file(path):
        pass  # SQLite does not say why it cannot open a file
    address = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    opened = sqlite3.connect(address, uri=True, check_same_thread=False)
    try:
        if opened.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION:
            raise sqlite3.DatabaseError("is not an index of documents")
        if (found := opened.execute("PRAGMA user_version").fetchone()[0]) != FORMAT:
            raise sqlite3.DatabaseError(f"has the format {found}, and this version needs {FORMAT}")
        opened.execute("PRAGMA query_only = 1")
        opened.execute("PRAGMA mmap_size = 0")  # of a file that shrinks, it would be a SIGBUS
        opened.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    except BaseException:
        opened.close()
        raise
    return opened


def _open_file(path: Path) -> BinaryIO:
    """Open a file for reading.

    Raises:
        OSError: It is missing, not readable, or something else, such as a pipe, which would block.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "is no file")
    return path.open("rb")


def read_note(opened: sqlite3.Connection) -> IndexNote:
    """What an index was built with.

    Raises:
        sqlite3.Error: It is damaged.
    """
    return _note(opened, "value", IndexNote)


def read_common(opened: sqlite3.Connection) -> frozenset[str]:
    """The terms that are in more than half of all passages: BM25 gives them no weight.

    Raises:
        sqlite3.Error: It is damaged.
    """
    return _note(opened, "common", frozenset[str])


def _note(opened: sqlite3.Connection, column: str, kind: type[T]) -> T:
    try:
        (value,) = opened.execute(f"SELECT {column} FROM note").fetchone()  # noqa: S608 - constants
        return msgspec.json.decode(value, type=kind)
    except (TypeError, msgspec.DecodeError) as error:
        raise sqlite3.DatabaseError(f"is damaged: {error}") from error


@contextmanager
def reporting_damage() -> Iterator[None]:
    """Around what reads an index: damage is an sqlite3.Error, also of text that is not UTF-8."""
    try:
        yield
    except UnicodeDecodeError as error:  # which sqlite3 raises for its own messages as well
        raise sqlite3.DatabaseError(f"is damaged: {error}") from error


def checked_row(row: tuple[Any, ...], *kinds: type) -> tuple[Any, ...]:
    """A row whose values are of these types; SQLite stores any value in any column.

    Raises:
        sqlite3.Error: They are of others.
    """
    if not all(map(isinstance, row, kinds)):
        raise sqlite3.DatabaseError("is damaged: a value has another type")
    return row


def indexed_files(opened: sqlite3.Connection) -> list[IndexedFile]:
    """The documents of an index, by their paths.

    Raises:
        sqlite3.Error: It is damaged.
    """
    rows = opened.execute(
        "SELECT id, path, size, digest, parser, title, fault FROM files ORDER BY path"
    )
    return [IndexedFile(*checked_row(row, int, str, int, str, str, str, str)) for row in rows]


@contextmanager
def writing(path: Path, note: IndexNote) -> Iterator[sqlite3.Connection]:
    """Write an index: it takes the place of the file at the end, if nothing has failed.

    Args:
        path: The file.
        note: What it is built with.

    Raises:
        ConfigError: It cannot be written, or is another file, which stays.
    """
    _check_replaced(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        temporary.unlink(missing_ok=True)
        with closing(sqlite3.connect(temporary, isolation_level=None)) as opened:
            opened.execute("PRAGMA journal_mode = OFF")
            opened.execute("PRAGMA synchronous = OFF")
            opened.execute(f"PRAGMA application_id = {_APPLICATION}")
            opened.execute(f"PRAGMA user_version = {FORMAT}")
            opened.executescript(SCHEMA.format(tokenizer=TOKENIZERS[note.tokenizer]))
            opened.execute("BEGIN")
            yield opened
            values = (
                msgspec.json.encode(note).decode(),
                msgspec.json.encode(_common(opened)).decode(),
            )
            opened.execute("INSERT INTO note VALUES (?, ?)", values)
            opened.execute("INSERT INTO words(words) VALUES ('optimize')")
            opened.execute("COMMIT")
            opened.execute("VACUUM")
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except (OSError, sqlite3.OperationalError) as error:
        raise ConfigError(f"{path}: cannot be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _check_replaced(path: Path) -> None:
    """Refuse to replace what is no index, such as a document or a database.

    Raises:
        ConfigError: It is another file.
    """
    try:
        with _open_file(path) as opened:
            head = opened.read(_APPLICATION_ENDS)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if head and int.from_bytes(head[_APPLICATION_ENDS - 4 :], "big") != _APPLICATION:
        raise ConfigError(
            f"{path} is not an index of documents, and is not replaced: delete it, or name another "
            "file as the index"
        )


def _common(opened: sqlite3.Connection) -> list[str]:
    """See `read_common`."""
    opened.execute("CREATE VIRTUAL TABLE temp.terms USING fts5vocab(main, 'words', 'row')")
    rows = opened.execute(
        "SELECT term FROM temp.terms WHERE doc > (SELECT count(*) FROM passages) / 2.0 "
        "ORDER BY term LIMIT 1000"
    )
    return [term for (term,) in rows]
