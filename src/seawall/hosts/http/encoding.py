"""Request bodies that come compressed, within the bounds of those that do not."""

import zlib

from seawall.errors import BodyTooLarge, InvalidRequest, UnsupportedEncoding

__all__ = ["decode_body"]

_GZIP = frozenset((b"gzip", b"x-gzip"))
_GZIP_WINDOW = 31  # the largest, with gzip's header: https://zlib.net/manual.html


def decode_body(data: bytes, coding: bytes, limit: int) -> bytes:
    """A body as it was before it was encoded.

    Args:
        data: The body as it came.
        coding: The value of Content-Encoding.
        limit: Bytes that may come of it; no more are ever decoded.

    Raises:
        UnsupportedEncoding: it is neither gzip nor identity.
        BodyTooLarge: it has more than `limit` bytes.
        InvalidRequest: it is not what the coding says.
    """
    name = coding.lower()
    if name in (b"", b"identity"):
        return data
    if name not in _GZIP:
        raise UnsupportedEncoding(
            "The body may be sent as it is, or encoded by gzip.", field="Content-Encoding"
        )
    decoder = zlib.decompressobj(_GZIP_WINDOW)
    try:
        body = decoder.decompress(data, limit + 1)
    except zlib.error as error:
        raise InvalidRequest("The body is not gzip.", field="Content-Encoding") from error
    if len(body) > limit:
        raise BodyTooLarge(f"The body may have {limit} bytes.")
    if not decoder.eof or decoder.unused_data:
        raise InvalidRequest("The body is not one gzip stream.", field="Content-Encoding")
    return body
