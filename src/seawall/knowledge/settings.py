"""Settings of folders of documents: tables `[knowledge.NAME]`.

Imported only where such a table exists.
"""

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import Meta, Struct

__all__ = ["KnowledgeLimits", "KnowledgeSettings", "check_name"]

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,57}\Z")  # a tool's name has 64 characters at most
_OVERLAP_SHARE = 2  # an overlap is at most half of a passage


class KnowledgeLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a build reads at most; beyond it, it stops with an error.

    Attributes:
        files: Documents in the folder.
        file_bytes: Size of a document.
        pages: Pages of a PDF document.
        document_characters: Text of a document, with the headings above each section.
        passages: Passages of all documents.
        document_seconds: Time for reading a document.
        document_mebibytes: Memory for reading a document.
    """

    files: Annotated[int, Meta(ge=1, le=100_000)] = 10_000
    file_bytes: Annotated[int, Meta(ge=1, le=1 << 30)] = 32 << 20
    pages: Annotated[int, Meta(ge=1, le=100_000)] = 2_000
    document_characters: Annotated[int, Meta(ge=1, le=100_000_000)] = 5_000_000
    passages: Annotated[int, Meta(ge=1, le=1_000_000)] = 200_000
    document_seconds: Annotated[float, Meta(gt=0, le=3_600)] = 60.0
    document_mebibytes: Annotated[int, Meta(ge=256, le=65_536)] = 1_024


class KnowledgeSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A folder of documents, and the tool `search_NAME`.

    Attributes:
        folder: The documents: Markdown, HTML, PDF and text.
        index: The file that `seawall knowledge build` writes; empty for NAME.knowledge beside the
            configuration.
        description: What is in the documents, for models.
        base_url: Address under which people find the documents; empty for none.
        urls: How addresses are made from file names: as they are ("file"), with the ending .html
            ("html"), or as folders without an ending ("folder").
        exclude: Patterns of files that are not read, such as "drafts/*"; `*` also matches slashes.
        passage_characters: Length of a passage, at most.
        overlap_characters: How much of its predecessor a passage repeats, at most.
        tokenizer: How words are compared: without case and accents ("unicode"), also by their
            English stems ("porter"), or by any three characters, for languages without spaces
            between words ("trigram").
        embeddings: Whether passages are also found by their meaning.
        embedding_model: Folder of the model's weights; empty for the installed package.
        passages: How many passages a search returns, if the model does not say.
        max_result_bytes: Of a result as a model gets it.
        search_seconds: Time limit of a search.
        concurrency: Searches at once, in each process.
        limits: What a build reads at most.
    """

    folder: Annotated[str, Meta(min_length=1)]
    index: str = ""
    description: Annotated[str, Meta(max_length=4_096)] = ""
    base_url: str = ""
    urls: Literal["file", "html", "folder"] = "file"
    exclude: tuple[Annotated[str, Meta(min_length=1, max_length=1_024)], ...] = ()
    passage_characters: Annotated[int, Meta(ge=200, le=8_000)] = 1_200
    overlap_characters: Annotated[int, Meta(ge=0, le=4_000)] = 150
    tokenizer: Literal["unicode", "porter", "trigram"] = "unicode"
    embeddings: bool = False
    embedding_model: str = ""
    passages: Annotated[int, Meta(ge=1, le=20)] = 5
    max_result_bytes: Annotated[int, Meta(ge=1_024, le=32_768)] = 12_288
    search_seconds: Annotated[float, Meta(gt=0, le=60)] = 2.0
    concurrency: Annotated[int, Meta(ge=1, le=64)] = 4
    limits: KnowledgeLimits = KnowledgeLimits()

    def __post_init__(self) -> None:
        if self.overlap_characters * _OVERLAP_SHARE > self.passage_characters:
            raise ValueError("overlap_characters must be at most half of passage_characters")
        if self.embedding_model and not self.embeddings:
            raise ValueError("embedding_model needs embeddings = true")
        if self.base_url:
            _check_base_url(self.base_url)


def check_name(name: str) -> None:
    """Check the NAME of a table.

    Raises:
        ValueError: No tool can be called `search_NAME`.
    """
    if not _NAME.match(name):
        raise ValueError("the name may have letters, digits, _ and -, 57 at most")


def _check_base_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not url.isascii() or any(each <= " " for each in url):
        raise ValueError("base_url must be an http or https address")
    if parts.query or parts.fragment or parts.username is not None:
        raise ValueError("base_url must have no query, fragment or user name")
