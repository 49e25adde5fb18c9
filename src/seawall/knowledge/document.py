"""A document as text: its title, and its sections by their headings."""

import re
import unicodedata

from msgspec import Struct

__all__ = ["Document", "Section", "Unreadable", "clean_line", "clean_text", "decode", "slug"]

_MAX_HEADING = 200  # characters
_unwanted = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2060\ufeff\ufffe\uffff\ud800-\udfff]")
_spaces = re.compile(r"[^\S\n]+")
_blank = re.compile(r"\n[^\S\n]*(?:\n[^\S\n]*)+")


class Section(Struct, frozen=True):
    """The text under one heading.

    Attributes:
        headings: Above the text, outermost first, without the document's title.
        text: Blocks, separated by an empty line.
        anchor: Fragment of the document's address; empty for none.
    """

    headings: tuple[str, ...]
    text: str
    anchor: str = ""


class Document(Struct, frozen=True):
    """A document.

    Attributes:
        title: Empty if it has none.
        sections: In their order; those without text are left out.
    """

    title: str
    sections: tuple[Section, ...]


class Unreadable(Exception):
    """The document cannot be read; the message says why."""


def decode(data: bytes, encoding: str = "utf-8") -> str:
    """The text of a file.

    Raises:
        Unreadable: It has another encoding.
    """
    try:
        return data.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeDecodeError as error:
        raise Unreadable(f"is not {encoding} text (byte {error.start})") from None


def clean_text(text: str, *, raw: bool = False) -> str:
    """Text without control characters, and with single empty lines.

    Args:
        text: Any text.
        raw: Whether spaces are kept; otherwise they become single ones.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n\n")
    text = _blank.sub("\n\n", _unwanted.sub("", text))
    if raw:
        return text.expandtabs(4).strip("\n").rstrip()
    return _spaces.sub(" ", text).replace(" \n", "\n").replace("\n ", "\n").strip()


def clean_line(text: str) -> str:
    """Text as one line, such as of a heading, of a bounded length."""
    return " ".join(_unwanted.sub(" ", text).split()).rstrip("¶").rstrip()[:_MAX_HEADING]


def _in_slug(letter: str) -> bool:
    return letter in "-_" or unicodedata.category(letter)[0] in "LNM"


def slug(heading: str) -> str:
    """The fragment that renderers of Markdown usually give to a heading."""
    kept = (each for each in heading.lower() if each.isspace() or _in_slug(each))
    return "".join(kept).strip().replace(" ", "-")
