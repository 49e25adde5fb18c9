"""Collects the sections of a document from its headings and blocks."""

from seawall.knowledge.document import Document, Section, clean_text

__all__ = ["Outline"]


class Outline:
    """Collects the sections of a document.

    Attributes:
        title: Of the document; the first heading of the highest level, if it is empty.
    """

    def __init__(self, title: str = "") -> None:
        self.title = title
        self._sections: list[Section] = []
        self._path: list[tuple[int, str]] = []
        self._anchor = ""
        self._blocks: list[str] = []

    def heading(self, level: int, text: str, anchor: str) -> None:
        """Begin a section.

        Args:
            level: From 1.
            text: Of the heading.
            anchor: Fragment of its address.
        """
        self._end()
        if not self.title and text:
            self.title = text
            self._path = [(level, "")]
        elif text == self.title and not self._sections:
            self._path = [(level, "")]
        else:
            self._path = [each for each in self._path if each[0] < level] + [(level, text)]
        self._anchor = anchor

    def block(self, text: str, *, joined: bool = False, raw: bool = False) -> None:
        """Add a block of text.

        Args:
            text: The block.
            joined: Whether it belongs to the one before, as a row or an item does.
            raw: Whether its spaces are kept, as of code.
        """
        text = clean_text(text, raw=raw)
        if not text:
            return
        if joined and self._blocks:
            self._blocks += ("\n", text)
        else:
            self._blocks += ("\n\n", text)

    def document(self) -> Document:
        """The document."""
        self._end()
        return Document(self.title, tuple(self._sections))

    def _end(self) -> None:
        if text := "".join(self._blocks).strip():
            headings = tuple(name for _, name in self._path if name)
            self._sections.append(Section(headings, text, self._anchor))
        self._blocks = []
