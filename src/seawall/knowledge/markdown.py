"""Sections of Markdown documents."""

import re
from collections.abc import Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token

from seawall.knowledge.document import Document, clean_line, clean_text, slug
from seawall.knowledge.html import read_html
from seawall.knowledge.outline import Outline

__all__ = ["read_markdown"]

_front_matter = re.compile(r"---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_title = re.compile(r"^title:[ \t]*(.+)$", re.MULTILINE)


def read_markdown(text: str) -> Document:
    """The sections of CommonMark with tables; a block of YAML at the beginning is left out.

    Args:
        text: The document.
    """
    title = ""
    if (found := _front_matter.match(text)) is not None:
        text = text[found.end() :]
        named = _title.search(found[1])
        title = clean_line(named[1].strip(" \t\"'")) if named else ""
    reader = _Reader(title)
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        reader.take(token)
    return reader.outline.document()


class _Reader:
    """Takes the tokens of a document, in their order."""

    def __init__(self, title: str) -> None:
        self.outline = Outline(title)
        self._around = ""  # type of the token before
        self._level = 0  # of the heading that is open
        self._item = False  # an item of a list has begun
        self._cells: list[str] = []  # of the row that is open
        self._anchors: dict[str, int] = {}  # with how often it was numbered

    def take(self, token: Token) -> None:
        """Take the next token."""
        if token.type == "inline":
            self._inline(_plain(token))
        elif token.type == "heading_open":
            self._level = int(token.tag[1])
        elif token.type == "list_item_open":
            self._item = True
        elif token.type == "tr_close":
            self.outline.block(" | ".join(self._cells), joined=True)
            self._cells = []
        elif token.type in ("fence", "code_block"):
            self.outline.block(token.content, raw=True)
        elif token.type == "html_block":
            inside = read_html(token.content)
            self.outline.block("\n\n".join(each.text for each in inside.sections))
        self._around = token.type

    def _inline(self, text: str) -> None:
        if self._level:
            heading = clean_line(text)
            self.outline.heading(self._level, heading, self._anchor(heading))
            self._level = 0
        elif self._around in ("td_open", "th_open"):
            self._cells.append(clean_text(text))
        else:
            self.outline.block(f"- {text}" if self._item else text, joined=self._item)
            self._item = False

    def _anchor(self, heading: str) -> str:
        """A fragment that no heading before has: the second of a name is numbered 1."""
        named = anchor = slug(heading)
        while anchor in self._anchors:
            self._anchors[named] += 1
            anchor = f"{named}-{self._anchors[named]}"
        self._anchors[anchor] = 0
        return anchor


def _plain(token: Token) -> str:
    """The text of inline content, without marks."""
    return "".join(_pieces(token.children or ()))


def _pieces(tokens: Sequence[Token]) -> list[str]:
    pieces: list[str] = []
    for token in tokens:
        if token.type in ("text", "code_inline"):
            pieces.append(token.content)
        elif token.type in ("softbreak", "hardbreak"):
            pieces.append("\n" if token.type == "hardbreak" else " ")
        elif token.type == "image":
            pieces += _pieces(token.children or ())
    return pieces
