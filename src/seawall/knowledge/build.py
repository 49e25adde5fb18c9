"""Builds the index of a folder.

An index is always written as a whole, in the order of paths, so that the same documents and
settings make the same file. What an earlier index has of a document that has not changed is taken
from there: reading documents and embedding passages is what takes time.
"""

import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from msgspec import Struct, structs

from seawall.errors import ConfigError
from seawall.intents.embedder import SentenceEmbedder
from seawall.knowledge.document import Unreadable, clean_line
from seawall.knowledge.folder import File, find_files, read_file
from seawall.knowledge.index_file import (
    FORMAT,
    IndexedFile,
    IndexNote,
    checked_row,
    connect,
    indexed_files,
    read_note,
    reporting_damage,
    writing,
)
from seawall.knowledge.passages import Passage, split_document
from seawall.knowledge.read import parser_of
from seawall.knowledge.reader import DocumentReader
from seawall.knowledge.settings import KnowledgeSettings
from seawall.knowledge.vectors import passage_vectors

__all__ = ["Built", "Progress", "build_index"]

Progress = Callable[[int, int, str], None]
"""Called with the number of documents that are done, of all, and the path of the next."""

_MOST_NAMED = 20
_MUCH = 0.25
_TRIGRAMS = (
    "much of the text is in languages without spaces between words, of which little is found "
    'without tokenizer = "trigram"'
)
# Thai and Lao, Burmese, Khmer, Japanese and Chinese.
_spaceless = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"
)


class Built(Struct, frozen=True):
    """An index that was built.

    Attributes:
        index: The file.
        documents: In the index.
        read: Documents that were read now; the others have not changed.
        removed: Documents of the index before that are gone.
        passages: In the index.
        bytes: Size of the file.
        faults: Why documents could not be read, by their paths.
        advice: What the settings do not fit; empty for nothing.
    """

    index: str
    documents: int
    read: int
    removed: int
    passages: int
    bytes: int
    faults: dict[str, str]
    advice: str = ""


class _Entry(Struct, frozen=True):
    """A document with its passages, and their vectors if there are any."""

    title: str
    passages: Sequence[Passage]
    vectors: Sequence[bytes] = ()
    fault: str = ""


def build_index(
    name: str,
    settings: KnowledgeSettings,
    *,
    embedder: SentenceEmbedder | None = None,
    anew: bool = False,
    skip_unreadable: bool = False,
    progress: Progress = lambda *_: None,
) -> Built:
    """Build the index of a folder.

    Args:
        name: NAME of the table `[knowledge.NAME]`.
        settings: The table.
        embedder: Embeds passages; None for none.
        anew: Whether nothing is taken from the index that there is.
        skip_unreadable: Whether documents that cannot be read are left out.
        progress: Reports documents.

    Raises:
        ConfigError: A document cannot be read, or the index cannot be written.
    """
    key = f"knowledge.{name}"
    path = Path(settings.index)
    files = find_files(key, settings)
    note = IndexNote(
        format=FORMAT,
        passage_characters=settings.passage_characters,
        overlap_characters=settings.overlap_characters,
        tokenizer=settings.tokenizer,
        embeddings=embedder.digest if embedder is not None else "",
    )
    before = {} if anew else _known(path, note)
    reader = DocumentReader(settings.limits)
    faults: dict[str, str] = {}
    passages = read = characters = spaceless = 0
    try:
        with writing(path, note) as opened:
            for number, file in enumerate(files):
                progress(number, len(files), file.path)
                data, digest, parser = _content(key, settings, file)
                entry = before.get((file.path, digest, parser))
                if entry is None:
                    entry = _read(reader, settings, file, data, embedder)
                    read += 1
                if entry.fault:
                    faults[file.path] = entry.fault
                passages += len(entry.passages)
                characters += sum(len(each.text) for each in entry.passages)
                spaceless += sum(_spaceless_characters(each.text) for each in entry.passages)
                if passages > settings.limits.passages:
                    raise ConfigError(
                        f"{key}: the documents have more passages than limits.passages, "
                        f"{settings.limits.passages:,}"
                    )
                row = IndexedFile(
                    number + 1, file.path, len(data), digest, parser, entry.title, entry.fault
                )
                _insert(opened, row, entry)
            if faults and not skip_unreadable:
                raise ConfigError(_refusal(key, faults))
    finally:
        reader.close()
    kept = {each.path for each in files}
    unfit = settings.tokenizer != "trigram" and spaceless > characters * _MUCH
    return Built(
        index=str(path),
        documents=len(files) - len(faults),
        read=read,
        removed=len({each for each, _, _ in before} - kept),
        passages=passages,
        bytes=path.stat().st_size,
        faults=faults,
        advice=_TRIGRAMS if unfit else "",
    )


def _spaceless_characters(text: str) -> int:
    """How many characters are of scripts that have no spaces between words."""
    return 0 if text.isascii() else len(text) - len(_spaceless.sub("", text))


def _content(key: str, settings: KnowledgeSettings, file: File) -> tuple[bytes, str, str]:
    """The content of a document, its digest, and what it is read by."""
    try:
        data, digest = read_file(settings, file)
    except OSError as error:
        raise ConfigError(f"{key}: {file.path} cannot be read: {error.strerror}") from error
    return data, digest, parser_of(file.path)


def _read(
    reader: DocumentReader,
    settings: KnowledgeSettings,
    file: File,
    data: bytes,
    embedder: SentenceEmbedder | None,
) -> _Entry:
    title = clean_line(Path(file.path).stem) or file.path
    try:
        document = reader.read(file.path, data)
    except Unreadable as fault:
        return _Entry(title, (), fault=str(fault))
    title = document.title or title
    passages = split_document(
        document, size=settings.passage_characters, overlap=settings.overlap_characters
    )
    if embedder is None:
        return _Entry(title, passages)
    return _Entry(title, passages, passage_vectors(embedder, title, passages))


def _insert(opened: sqlite3.Connection, file: IndexedFile, entry: _Entry) -> None:
    opened.execute(
        "INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?)",
        (file.id, file.path, file.size, file.digest, file.parser, file.title, file.fault),
    )
    for index, passage in enumerate(entry.passages):
        row = opened.execute(
            "INSERT INTO passages (file, section, anchor, text) VALUES (?, ?, ?, ?)",
            (file.id, passage.section, passage.anchor, passage.text),
        ).lastrowid
        opened.execute(
            "INSERT INTO words (rowid, heading, text) VALUES (?, ?, ?)",
            (row, f"{file.title}\n{passage.section}", passage.text),
        )
        if entry.vectors:
            opened.execute("INSERT INTO vectors VALUES (?, ?)", (row, entry.vectors[index]))


def _known(path: Path, note: IndexNote) -> dict[tuple[str, str, str], _Entry]:
    """What an earlier index has of documents, if it was built with the same settings."""
    try:
        with reporting_damage(), closing(connect(path)) as opened:
            # How words are compared does not matter to what is taken from there.
            if structs.replace(read_note(opened), tokenizer=note.tokenizer) != note:
                return {}
            return {
                (file.path, file.digest, file.parser): _entry(opened, file)
                for file in indexed_files(opened)
                if not file.fault  # it may be readable by now: limits are not noted
            }
    except (OSError, sqlite3.Error):
        return {}


def _entry(opened: sqlite3.Connection, file: IndexedFile) -> _Entry:
    rows = opened.execute(
        "SELECT section, anchor, text, value FROM passages LEFT JOIN vectors ON passage = id "
        "WHERE file = ? ORDER BY id",
        (file.id,),
    ).fetchall()
    vectors = tuple(row[3] for row in rows if row[3] is not None)
    passages = [Passage(*checked_row(row[:3], str, str, str)) for row in rows]
    return _Entry(file.title, passages, vectors)


def _refusal(key: str, faults: dict[str, str]) -> str:
    def lines() -> Iterator[str]:
        for path, fault in list(faults.items())[:_MOST_NAMED]:
            yield f"\n  {path} {fault}"
        if len(faults) > _MOST_NAMED:
            yield f"\n  and {len(faults) - _MOST_NAMED} more"

    return (
        f"{key}: {len(faults)} of the documents cannot be read:{''.join(lines())}\n"
        "Repair or exclude them, or leave them out with --skip-unreadable."
    )
