"""Searches an index: by words (BM25), and by meaning as well if it has vectors."""

import sqlite3
import threading
import time
import unicodedata
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct

from seawall.errors import ConfigError
from seawall.knowledge.index_file import (
    IndexNote,
    checked_row,
    connect,
    read_common,
    read_note,
    reporting_damage,
    signature,
)

if TYPE_CHECKING:
    from seawall.intents.embedder import SentenceEmbedder
    from seawall.knowledge.vectors import PassageVectors

T = TypeVar("T")

__all__ = ["Found", "IndexSearch", "SearchTooSlow", "match_expression"]

_MAX_CHARACTERS = 1_000  # of a question
_MAX_TERMS = 64
_HEADING_WEIGHT = 2.0
_CANDIDATES = 50  # of each way of searching
_FUSION = 60  # Cormack, Clarke and Büttcher, Reciprocal Rank Fusion, SIGIR 2009
_REPLACEMENTS = 3  # of the index, during one search
_STEPS = 20_000  # of SQLite's machine, between looks at the clock

_QUERY = f"""
SELECT rowid FROM words WHERE words MATCH ? ORDER BY bm25(words, {_HEADING_WEIGHT}, 1.0), rowid
LIMIT {_CANDIDATES}
"""  # noqa: S608 - of constants
_PASSAGE = """
SELECT files.path, files.title, passages.section, passages.anchor, passages.text
FROM passages JOIN files ON files.id = passages.file WHERE passages.id = ?
"""


class SearchTooSlow(Exception):
    """The search took longer than it may."""


class _Replaced(Exception):
    """The index was replaced while a search began."""


class Found(Struct, frozen=True):
    """A passage that was found.

    Attributes:
        path: Of the document, relative to the folder.
        title: Of the document.
        section: The headings above the passage, joined by " > ".
        anchor: Fragment of its address.
        text: The passage.
        score: By which it was ranked: a sum of 1/(60 + rank) over the ways of searching, so that
            scores of one answer can be compared, and of different questions cannot.
    """

    path: str
    title: str
    section: str
    anchor: str
    text: str
    score: float


class _Opened:
    """One version of the file: connections to it that are idle, and its vectors."""

    def __init__(self, path: Path) -> None:
        self.signature = signature(path)
        self.idle: list[sqlite3.Connection] = []
        first = connect(path)
        try:
            self.note: IndexNote = read_note(first)
            self.common = read_common(first)
        except BaseException:
            first.close()
            raise
        self.idle.append(first)
        self.vectors: PassageVectors | None = None


class IndexSearch:
    """Searches the index at a path, by any number of threads; notices when it is replaced."""

    def __init__(
        self,
        path: Path,
        *,
        seconds: float = 2.0,
        open_embedder: "Callable[[], SentenceEmbedder] | None" = None,
    ) -> None:
        """Create a search; `open` opens the file.

        Args:
            path: The index.
            seconds: Time limit of a search.
            open_embedder: Opens the model that embeds questions; None to search by words only.
        """
        self._path = path
        self._seconds = seconds
        self._open_embedder = open_embedder
        self._embedder: SentenceEmbedder | None = None
        self._lock = threading.Lock()
        self._opened: _Opened | None = None

    def open(self, *, vectors: bool) -> None:
        """Open the index, which fails if it cannot be searched.

        Args:
            vectors: Whether the model and the vectors are loaded now, not with the first search.

        Raises:
            ConfigError: It is missing, damaged, or of another format or embedding model.
            SearchTooSlow: It is replaced all the time.
        """
        try:
            self._with_current(lambda opened: self._loaded_vectors(opened) if vectors else None)
        except (OSError, sqlite3.Error) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise ConfigError(f"{self._path} {reason}") from error

    def search(self, question: str, count: int) -> list[Found]:
        """The passages that fit a question best, best first; the same for the same index.

        Args:
            question: Any text.
            count: How many, at most.

        Raises:
            SearchTooSlow: It took longer than it may.
            ConfigError: The index was replaced by one that cannot be searched.
            sqlite3.Error: The index is damaged.
            OSError: It is gone.
        """
        question = question[:_MAX_CHARACTERS]
        return self._with_current(lambda opened: self._search(opened, question, count))

    def _with_current(self, do: Callable[[_Opened], T]) -> T:
        """Do something with the file as it is now; again if it is replaced meanwhile."""
        for _ in range(_REPLACEMENTS):
            with suppress(_Replaced), reporting_damage():
                return do(self._current())
        raise SearchTooSlow("the index is replaced all the time")

    def _search(self, opened: _Opened, question: str, count: int) -> list[Found]:
        vectors = self._loaded_vectors(opened)  # not within the time limit of a search
        with self._connection(opened) as connection:
            ranked = [_by_words(connection, opened, question)]
            if vectors is not None and self._embedder is not None and question.strip():
                ranked.append(vectors.nearest(self._embedder([question])[0], _CANDIDATES))
            return _first(connection, _fused(ranked), count)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            opened, self._opened = self._opened, None
            if opened is not None:
                _close(opened)

    def _current(self) -> _Opened:
        """The file as it is now."""
        with self._lock:
            opened = self._opened
            if opened is None or opened.signature != signature(self._path):
                fresh = _Opened(self._path)
                if opened is not None:
                    _close(opened)
                self._opened = opened = fresh
            return opened

    def _connect(self, opened: _Opened) -> sqlite3.Connection:
        """One more connection to the same version of the file."""
        connection = connect(self._path)
        if signature(self._path) != opened.signature:
            connection.close()
            raise _Replaced
        return connection

    @contextmanager
    def _connection(self, opened: _Opened) -> Iterator[sqlite3.Connection]:
        """A connection for exclusive use meanwhile."""
        with self._lock:
            connection = opened.idle.pop() if opened.idle else None
        if connection is None:
            connection = self._connect(opened)
        until = time.monotonic() + self._seconds
        connection.set_progress_handler(lambda: time.monotonic() > until, _STEPS)
        try:
            yield connection
        except sqlite3.OperationalError as error:
            if time.monotonic() > until:
                raise SearchTooSlow(f"the search took more than {self._seconds:g} s") from error
            raise
        finally:
            connection.set_progress_handler(None, 0)
            with self._lock:
                if self._opened is opened:
                    opened.idle.append(connection)
                else:
                    connection.close()

    def _loaded_vectors(self, opened: _Opened) -> "PassageVectors | None":
        """The vectors of the file, and the model that they are of; None to search by words only."""
        if self._open_embedder is None or opened.vectors is not None:
            return opened.vectors
        from seawall.knowledge.vectors import PassageVectors  # noqa: PLC0415 - only if configured

        with self._lock:
            if self._embedder is None:
                self._embedder = self._open_embedder()
            if opened.note.embeddings != self._embedder.digest:
                what = "another model" if opened.note.embeddings else "none"
                raise ConfigError(f"{self._path} has embeddings of {what}; build it again")
            if opened.vectors is None:
                with closing(self._connect(opened)) as source:
                    opened.vectors = PassageVectors(source, self._embedder.size)
            return opened.vectors


def _by_words(connection: sqlite3.Connection, opened: _Opened, question: str) -> list[int]:
    expression = match_expression(question, opened.note.tokenizer, opened.common)
    if not expression:
        return []
    return [row for (row,) in connection.execute(_QUERY, (expression,))]


def match_expression(question: str, tokenizer: str, common: Container[str] = ()) -> str:
    """FTS5's expression for any of the words of a question; empty if it has none.

    Every term is a quoted string, so that nothing in a question is syntax.

    Args:
        question: Any text.
        tokenizer: Of the index.
        common: Words that are left out if there are others: they take most of the time of a
            search, and change nothing in its order.
    """
    terms: dict[str, None] = {}
    for word in _words(question.lower()):
        if tokenizer == "trigram":
            terms |= dict.fromkeys(word[at : at + 3] for at in range(len(word) - 2))
        else:
            terms[word] = None
        if len(terms) >= _MAX_TERMS:
            break
    telling = [each for each in terms if each not in common] or list(terms)
    return " OR ".join(f'"{each}"' for each in telling[:_MAX_TERMS])


def _words(text: str) -> list[str]:
    """The words of a text, as the index has them: marks are of words, see `TOKENIZERS`."""
    return "".join(
        each if each.isalnum() or each == "_" or unicodedata.category(each)[0] == "M" else " "
        for each in text
    ).split()


def _fused(ranked: Sequence[Sequence[int]]) -> list[tuple[int, float]]:
    """Passages with their scores, best first: reciprocal rank fusion."""
    scores: dict[int, float] = {}
    for passages in ranked:
        for rank, passage in enumerate(passages, 1):
            scores[passage] = scores.get(passage, 0.0) + 1 / (_FUSION + rank)
    return sorted(scores.items(), key=lambda each: (-each[1], each[0]))


def _first(
    connection: sqlite3.Connection, ranked: Sequence[tuple[int, float]], count: int
) -> list[Found]:
    """The first passages of a ranking whose texts differ."""
    found: dict[str, Found] = {}
    for passage, score in ranked:
        if len(found) >= count:
            break
        row = connection.execute(_PASSAGE, (passage,)).fetchone()
        if row is None:
            continue
        path, title, section, anchor, text = checked_row(row, *[str] * 5)
        if text not in found:
            found[text] = Found(path, title, section, anchor, text, round(score, 6))
    return list(found.values())


def _close(opened: _Opened) -> None:
    for each in opened.idle:
        each.close()
    opened.idle.clear()
