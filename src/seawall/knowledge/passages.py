"""Passages: pieces of documents of a bounded length, each under its headings."""

import re
from collections.abc import Generator, Iterator

from msgspec import Struct

from seawall.knowledge.document import Document

__all__ = ["Passage", "split_document", "split_text"]

_SECTION_CHARACTERS = 400
_space = re.compile(r"\s*")
_ends = (
    re.compile(r"\n"),
    re.compile(r"[.!?\u3002\uff01\uff1f\u2026]['\")\]]*\s|[\u3002\uff01\uff1f]"),  # of sentences
    re.compile(r"\s"),
)


class Passage(Struct, frozen=True):
    """A piece of a document.

    Attributes:
        section: The headings above it, joined by " > ".
        anchor: Fragment of its address.
        text: The piece.
    """

    section: str
    anchor: str
    text: str


def split_document(document: Document, *, size: int, overlap: int) -> list[Passage]:
    """The passages of a document, in their order; none goes beyond its section.

    Args:
        document: The document.
        size: Characters of a passage, at most.
        overlap: Characters of its predecessor that a passage repeats, at most half of `size`.
    """
    return [
        Passage(" > ".join(section.headings)[:_SECTION_CHARACTERS], section.anchor, text)
        for section in document.sections
        for text in split_text(section.text, size=size, overlap=overlap)
    ]


def split_text(text: str, *, size: int, overlap: int) -> Iterator[str]:
    """Pieces of a text: whole blocks where they fit, else lines, sentences, words.

    Args:
        text: Blocks, separated by empty lines.
        size: As for `split_document`.
        overlap: As for `split_document`.
    """
    piece = ""
    for block in text.split("\n\n"):
        if piece and len(piece) + 2 + len(block) <= size:
            piece = f"{piece}\n\n{block}"
            continue
        if piece:
            yield piece
            tail = _tail(piece, min(overlap, size - len(block) - 2))
            piece = f"{tail}\n\n{block}" if tail else block
        else:
            piece = block
        if len(piece) > size:
            piece = yield from _split_block(piece, size, overlap)
    if piece.strip():
        yield piece


def _split_block(text: str, size: int, overlap: int) -> Generator[str, None, str]:
    """Pieces of a text that is too long; returns what is left. In linear time."""
    tail, at = "", 0
    while len(tail) + len(text) - at > size:
        window = tail + text[at : at + size - len(tail)]
        end = _cut(window, size, size // 2)
        yield window[:end].rstrip()
        at += end - len(tail)
        tail = _tail(window[:end], overlap)
        if not tail:
            at = _space.match(text, at).end()  # type: ignore[union-attr] # matches nothing as well
    return tail + text[at:]


def _cut(text: str, size: int, least: int) -> int:
    """Where a text is cut: behind its last good end between two positions."""
    window = text[:size]
    for pattern in _ends:
        found = [each.end() for each in pattern.finditer(window, least)]
        if found:
            return found[-1]
    return size


def _tail(text: str, length: int) -> str:
    """The end of a text, from the beginning of a word, or of a sentence if one begins there."""
    if length <= 0:
        return ""
    window = text[-length:]
    if len(window) < len(text) and not text[-length - 1].isspace():
        found = re.search(r"\s", window)
        if found is None:
            return ""
        window = window[found.end() :]
    sentence = _ends[1].search(window)
    if sentence is not None and sentence.end() < len(window):
        window = window[sentence.end() :]
    return window.lstrip()
