"""PDFs: their structure is checked, and they pass unchanged.

What is in a page is not decompressed: that is for the provider's reader. A document is refused if
its structure cannot be read within the limits of the process, if it is encrypted, has too many
pages, or compresses a page more than once, as bombs do.
"""

import logging
from io import BytesIO

from pypdf import PdfReader
from pypdf.errors import PyPdfError
from pypdf.generic import ArrayObject, DictionaryObject, StreamObject

from seawall.attachments.images import Refused

__all__ = ["inspect_pdf"]

_MAX_FILTERS = 2  # one that compresses, one that makes it text
_MAX_STREAMS = 1_000  # of one page
# https://platform.claude.com/docs/en/build-with-claude/pdf-support: 1,500 to 3,000 a page
_TOKENS_A_PAGE = 3_000
_UNREADABLE = "The PDF is damaged, or nested too deeply."

logging.getLogger("pypdf").disabled = True  # it quotes what is in the file


def inspect_pdf(content: bytes, *, pages: int) -> int:
    """Check a PDF; about how many tokens a model reads for it.

    Args:
        content: The document.
        pages: How many pages it may have.

    Raises:
        Refused: It is not accepted.
        Exception: It is damaged; any that the reader raises.
    """
    try:
        reader = PdfReader(BytesIO(content), strict=False)
        if reader.is_encrypted:
            raise Refused("The PDF is encrypted.")
        count = len(reader.pages)
        if count > pages:
            raise Refused(f"The PDF has {count} pages; at most {pages}.")
        if not count:
            raise Refused("The PDF has no pages.")
        for page in reader.pages:
            _check_page(page)
    except (RecursionError, PyPdfError) as error:
        raise Refused(_UNREADABLE) from error
    return count * _TOKENS_A_PAGE


def _check_page(page: DictionaryObject) -> None:
    found = page.get("/Contents")
    contents = found.get_object() if found is not None else None
    streams = list(contents) if isinstance(contents, ArrayObject) else [contents]
    if len(streams) > _MAX_STREAMS:
        raise Refused(f"A page of the PDF has more than {_MAX_STREAMS} parts.")
    for each in streams:
        stream = each.get_object() if each is not None else None
        if not isinstance(stream, StreamObject):
            continue
        filters = stream.get("/Filter")
        filters = filters.get_object() if filters is not None else None
        if isinstance(filters, ArrayObject) and len(filters) > _MAX_FILTERS:
            raise Refused("The PDF compresses a page several times.")
