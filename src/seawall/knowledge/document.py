"""A document as text: its title, and its sections by their headings."""

import re
import unicodedata

from msgspec import Struct

from seawall.printable import INVISIBLE_MARKS

__all__ = [
    "Document",
    "Section",
    "Unreadable",
    "clean_line",
    "clean_text",
    "decode",
    "has_invisible",
    "slug",
]

_MAX_HEADING = 200  # characters
_unwanted = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff\ud800-\udfff"
    # Invisible, but for the joiners and marks of direction that words of some languages have.
    r"\xad\u180e\u200b\u202a-\u202e\u2060-\u206f\ufeff\ufff0-\ufffb\U000e0000-\U000e0fff"
    rf"{INVISIBLE_MARKS}]"
)
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


def has_invisible(line: str) -> bool:
    """Whether a line has control characters, or others that readers do not see."""
    return "\n" in line or "\t" in line or _unwanted.search(line) is not None


def clean_text(text: str, *, raw: bool = False) -> str:
    """Text without control and invisible characters, and with single empty lines.

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
    text = _unwanted.sub("", " ".join(text.split()))
    return " ".join(text.split()).rstrip("¶").rstrip()[:_MAX_HEADING]


def _in_slug(letter: str) -> bool:
    return letter in "-_" or unicodedata.category(letter)[0] in "LNM"


def slug(heading: str) -> str:
    """The fragment that renderers of Markdown usually give to a heading."""
    kept = (each for each in heading.lower() if each.isspace() or _in_slug(each))
    return "".join(kept).strip().replace(" ", "-")
