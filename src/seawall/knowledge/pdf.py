"""Sections of PDF documents: a section for each page, with the headings of the outline."""

import pypdfium2

from seawall.knowledge.document import Document, Section, Unreadable, clean_line, clean_text

__all__ = ["read_pdf"]

_MAX_ENTRIES = 10_000  # of the outline
_MAX_LEVEL = 8
_NO_TEXT = "has no text; pages that are pictures need text recognition first"


def read_pdf(data: bytes, *, pages: int, characters: int) -> Document:
    """The sections of a document.

    Args:
        data: The file.
        pages: How many pages it may have.
        characters: How much text it may have.

    Raises:
        Unreadable: It is damaged, encrypted or too long, or has no text.
    """
    try:
        opened = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        raise Unreadable(f"is not a readable PDF document: {clean_line(str(error))}") from None
    try:
        return _read(opened, pages, characters)
    except pypdfium2.PdfiumError as error:
        raise Unreadable(f"is damaged: {clean_line(str(error))}") from None
    finally:
        opened.close()


def _read(opened: pypdfium2.PdfDocument, pages: int, characters: int) -> Document:
    count = len(opened)
    if count > pages:
        raise Unreadable(f"has {count:,} pages; limits.pages is {pages:,}")
    outline = _outline(opened)
    sections: list[Section] = []
    headings: tuple[str, ...] = ()
    for number in range(count):
        while outline and outline[0][0] <= number:
            headings = outline.pop(0)[1]
        if text := clean_text(_page_text(opened, number)):
            sections.append(Section(headings, text, f"page={number + 1}"))
            characters -= len(text)
        if characters < 0:
            raise Unreadable("has more text than limits.document_characters")
    if not sections:
        raise Unreadable(_NO_TEXT)
    return Document(clean_line(opened.get_metadata_dict().get("Title", "")), tuple(sections))


def _page_text(opened: pypdfium2.PdfDocument, number: int) -> str:
    page = opened[number]
    try:
        text = page.get_textpage()
        try:
            found: str = text.get_text_bounded()
            return found
        finally:
            text.close()
    finally:
        page.close()


def _outline(opened: pypdfium2.PdfDocument) -> list[tuple[int, tuple[str, ...]]]:
    """Pages, from 0, at which entries of the outline begin, with their headings; in order."""
    found: list[tuple[int, tuple[str, ...]]] = []
    path: list[str] = []
    for entry in opened.get_toc(max_depth=_MAX_LEVEL):
        path = [*path[: entry.level], clean_line(entry.get_title())]
        place = entry.get_dest()
        page = place.get_index() if place is not None else None
        if page is not None and page >= 0:
            found.append((page, tuple(filter(None, path))))
        if len(found) >= _MAX_ENTRIES:
            break
    return sorted(found, key=lambda each: each[0])
