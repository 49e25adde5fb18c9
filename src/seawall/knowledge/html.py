"""Sections of HTML documents: what a reader sees, without navigation."""

import re

from selectolax.lexbor import LexborHTMLParser, LexborNode

from seawall.knowledge.document import Document, Unreadable, clean_line, decode
from seawall.knowledge.outline import Outline

__all__ = ["decode_html", "read_html"]

_MAX_DEPTH = 512  # of elements; what is deeper is left out
_SKIPPED = frozenset(
    {"script", "style", "template", "noscript", "svg", "math", "iframe", "object", "embed"}
    | {"nav", "footer", "aside", "form", "button", "select", "textarea", "input", "dialog"}
    | {"head", "canvas", "audio", "video", "-comment", "!doctype"}
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_ROLES = frozenset({"navigation", "search", "banner", "contentinfo", "complementary"})
_INLINE = frozenset(
    {"a", "abbr", "b", "bdi", "bdo", "cite", "code", "data", "del", "dfn", "em", "font", "i", "ins"}
    | {"kbd", "label", "mark", "q", "s", "samp", "small", "span", "strong", "sub", "sup", "time"}
    | {"tt", "u", "var", "wbr", "img"}
)
_JOINED = frozenset({"li", "tr", "dt", "dd"})
_CELLS = frozenset({"td", "th"})
_MAX_ANCHOR = 200  # characters
_spaces = re.compile(r"\s+")
_hidden = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_charset = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?([A-Za-z0-9_-]{1,40})", re.IGNORECASE)


def decode_html(data: bytes) -> str:
    """The text of an HTML file, in UTF-8 or in the encoding that it declares.

    Raises:
        Unreadable: It is in neither.
    """
    try:
        return decode(data)
    except Unreadable:
        declared = _charset.search(data[:2_048])
        if declared is None:
            raise
        try:
            return decode(data, declared[1].decode())
        except LookupError:
            raise Unreadable(f"declares an unknown encoding: {declared[1].decode()}") from None


def read_html(text: str) -> Document:
    """The sections of a document: of its main part, if it names one.

    Args:
        text: The document, or a part of one.
    """
    tree = LexborHTMLParser(text.replace("\0", ""))
    top = tree.css_first("main, [role=main]") or tree.css_first("article") or tree.body
    if top is None:
        return Document("", ())
    first = top.css_first("h1")
    titled = first if first is not None else tree.css_first("title")
    title = clean_line(titled.text()) if titled is not None else ""
    walk = _Walk(title)
    walk.run(top)
    return walk.outline.document()


class _Walk:
    """A walk over elements, without recursion: documents may be nested arbitrarily deep."""

    def __init__(self, title: str) -> None:
        self.outline = Outline(title)
        self._pieces: list[str] = []
        self._joined = False
        self._raw = 0  # elements around the text that keep its spaces

    def run(self, top: LexborNode) -> None:
        """Walk over everything in an element."""
        stack: list[LexborNode] = []
        node = top.child
        while node is not None or stack:
            if node is None:
                left = stack.pop()
                self._leave(left)
                node = left.next
                continue
            entered = self._enter(node)
            inside = node.child if entered and len(stack) < _MAX_DEPTH else None
            if inside is not None:
                stack.append(node)
                node = inside
                continue
            if entered:
                self._leave(node)
            node = node.next
        self._end_block()

    def _enter(self, node: LexborNode) -> bool:
        """Whether what is in a node is looked at."""
        tag = node.tag or ""
        if tag == "-text":
            text = node.text_content or ""
            self._pieces.append(text if self._raw else _spaces.sub(" ", text))
            return False
        if tag in _SKIPPED or _is_hidden(node):
            return False
        if tag in _HEADINGS:
            self._end_block()
            self.outline.heading(_HEADINGS[tag], clean_line(node.text()), _anchor(node))
            return False
        if tag == "br":
            self._pieces.append("\n")
        elif tag in _CELLS:
            self._pieces.append(" | " if self._pieces else "")
        elif tag not in _INLINE:
            self._end_block()
            self._joined = tag in _JOINED
            self._raw += tag == "pre"
            if tag == "li":
                self._pieces.append("- ")
        return True

    def _leave(self, node: LexborNode) -> None:
        if node.tag not in _INLINE and node.tag not in _CELLS and node.tag != "br":
            self._end_block()
            self._raw -= node.tag == "pre"

    def _end_block(self) -> None:
        text = "".join(self._pieces)
        self._pieces = []
        if text.strip(" -|\n"):
            self.outline.block(text, joined=self._joined, raw=self._raw > 0)
            self._joined = False


def _is_hidden(node: LexborNode) -> bool:
    """Whether readers do not see an element, or it is not of the text."""
    attributes = node.attributes
    return bool(attributes) and (
        "hidden" in attributes
        or attributes.get("aria-hidden") == "true"
        or attributes.get("role") in _ROLES
        or _hidden.search(attributes.get("style") or "") is not None
    )


def _anchor(heading: LexborNode) -> str:
    """The fragment of a heading's address: its id, or that of the section that it begins."""
    own = heading.attributes.get("id")
    section = heading.parent
    if not own and section is not None and section.tag in ("section", "div"):
        own = section.attributes.get("id")
    return (own or "")[:_MAX_ANCHOR]
