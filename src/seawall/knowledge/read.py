"""Reads one document, by the ending of its name."""

from pathlib import PurePosixPath

from seawall.knowledge.document import Document, Section, Unreadable, clean_text, decode

__all__ = ["MEDIA_TYPES", "is_plain_text", "parser_of", "read_document"]

MEDIA_TYPES = {
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".html": "text/html",
    ".htm": "text/html",
    ".pdf": "application/pdf",
    ".txt": "text/plain",
}
"""By the endings of names, in lower case."""

_REVISION = 2  # of what is made of a document; raise it when that changes
_PACKAGES = {
    "text/markdown": ("markdown-it-py", "selectolax"),
    "text/html": ("selectolax",),
    "application/pdf": ("pypdfium2",),
    "text/plain": (),
}


def parser_of(path: str) -> str:
    """What a document is read by: what another version makes of it may differ.

    Args:
        path: Of the document.
    """
    from importlib import metadata  # noqa: PLC0415 - of a build only

    packages = _PACKAGES[_media_type(path)]
    return " ".join((f"{_REVISION}", *(f"{each}-{metadata.version(each)}" for each in packages)))


def read_document(path: str, data: bytes, *, pages: int, characters: int) -> Document:
    """Read a document.

    Args:
        path: Its name, relative to the folder.
        data: The file.
        pages: How many pages a PDF document may have.
        characters: How much text it may have.

    Raises:
        Unreadable: It is of another format, damaged, or too long.
        ImportError: The extra `knowledge` is not installed.
    """
    media_type = _media_type(path)
    if media_type == "application/pdf":
        from seawall.knowledge.pdf import read_pdf  # noqa: PLC0415 - only where there are some

        document = read_pdf(data, pages=pages, characters=characters)
    elif media_type == "text/html":
        from seawall.knowledge.html import decode_html, read_html  # noqa: PLC0415 - likewise

        document = read_html(decode_html(data))
    elif media_type == "text/markdown":
        from seawall.knowledge.markdown import read_markdown  # noqa: PLC0415 - likewise

        document = read_markdown(decode(data).replace("\r\n", "\n"))
    else:
        text = clean_text(decode(data))
        document = Document("", (Section((), text),) if text else ())
    # With the headings, which each passage has: a word under long ones is no short document.
    length = sum(
        len(each.text) + sum(map(len, each.headings)) + len(each.anchor)
        for each in document.sections
    )
    if length > characters:
        raise Unreadable(
            f"has {length:,} characters of text and headings; "
            f"limits.document_characters is {characters:,}"
        )
    return document


def is_plain_text(path: str) -> bool:
    """Whether a document is read without a parser."""
    return _media_type(path) == "text/plain"


def _media_type(path: str) -> str:
    return MEDIA_TYPES[PurePosixPath(path).suffix.lower()]
