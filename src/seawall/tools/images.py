"""Images in results of tools: which ones models are shown."""

import base64
import binascii

from seawall.turn import Image

__all__ = ["MAX_IMAGES", "MAX_IMAGE_BYTES", "read_image"]

MAX_IMAGES = 4
"""Of one result."""

MAX_IMAGE_BYTES = 1 << 20
"""Of one image."""

# All that every provider takes, by how they begin.
_BEGINNINGS = {
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/gif": (b"GIF87a", b"GIF89a"),
    "image/webp": (b"RIFF",),
}


def read_image(media_type: str | None, data: str) -> Image | None:
    """An image that models can be shown; None for anything else.

    Args:
        media_type: As the source says.
        data: Base64.
    """
    beginnings = _BEGINNINGS.get(media_type or "")
    if beginnings is None or media_type is None or len(data) > 4 * MAX_IMAGE_BYTES // 3 + 4:
        return None
    try:
        content = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return None
    webp = media_type != "image/webp" or content[8:12] == b"WEBP"
    if len(content) > MAX_IMAGE_BYTES or not (content.startswith(beginnings) and webp):
        return None
    return Image(media_type, data)
