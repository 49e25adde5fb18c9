"""Kinds of files: found from their bytes, whatever a client says; names as they are kept."""

import re
from codecs import utf_8_decode

__all__ = [
    "IMAGE_TYPES",
    "PDF",
    "TEXT",
    "kept_name",
    "kind_of",
    "recognise",
    "text_tokens",
]

PDF = "application/pdf"
TEXT = "text/plain"

IMAGE_TYPES = frozenset({"image/jpeg", "image/png", "image/webp", "image/gif"})
_MAX_NAME_CHARACTERS = 120
_PDF_WITHIN = 1_024  # where readers look for the head
_BEFORE_PDF = b"\xef\xbb\xbf\0\t\n\f\r "
_BEGINNINGS: dict[str, bytes | tuple[bytes, ...]] = {
    "image/png": b"\x89PNG\r\n\x1a\n",
    "image/jpeg": b"\xff\xd8\xff",
    "image/gif": (b"GIF87a", b"GIF89a"),
}
_CHARACTERS_A_TOKEN = 4
_unprintable = re.compile(r"[^\w .,()&+@#=~-]+")


def recognise(content: bytes, *, text_bytes: int) -> str:
    """The media type of some bytes: an image, a PDF or text; empty for anything else.

    Args:
        content: The bytes.
        text_bytes: What a text may have; of a longer one, the rest is not looked at.
    """
    for media_type, beginnings in _BEGINNINGS.items():
        if content.startswith(beginnings):
            return media_type
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    if content[:_PDF_WITHIN].lstrip(_BEFORE_PDF).startswith(b"%PDF-"):
        return PDF
    return TEXT if content and _is_text(content, text_bytes) else ""


def _is_text(content: bytes, most: int) -> bool:
    try:
        utf_8_decode(content[:most], "strict", len(content) <= most)
    except UnicodeDecodeError:
        return False
    return b"\0" not in content


def kind_of(media_type: str) -> str:
    """Of a stored file: "image", "pdf" or "text"."""
    if media_type in IMAGE_TYPES:
        return "image"
    return "pdf" if media_type == PDF else "text"


def kept_name(name: str) -> str:
    """The name of a file as it is kept and shown: its last part, of printable characters."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return _unprintable.sub("_", last).strip()[:_MAX_NAME_CHARACTERS]


def text_tokens(size: int) -> int:
    """About how many tokens a text of so many bytes is."""
    return size // _CHARACTERS_A_TOKEN + 1
