"""Files for tests: photos with metadata, documents, and files that are made to do harm."""

import base64
import struct
import zlib
from io import BytesIO

from PIL import ExifTags, Image, PngImagePlugin
from pypdf import PdfWriter
from pypdf.generic import (
    ArrayObject,
    DictionaryObject,
    NameObject,
    NumberObject,
    StreamObject,
)

__all__ = [
    "SECRETS",
    "bomb_pdf",
    "chunked_png",
    "data_url",
    "gif_of_frames",
    "nested_pdf",
    "pdf",
    "photo",
    "png_of_size",
    "repeatedly_compressed_pdf",
]

SECRETS = (b"SECRET-PLACE", b"SECRET-COMMENT", b"SECRET-XMP", b"SECRET-TEXT", b"SECRET-ICC")
"""What the photos of this module say besides the picture."""

_XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>SECRET-XMP</x:xmpmeta>"


def photo(kind: str = "JPEG", size: tuple[int, int] = (400, 300), *, orientation: int = 1) -> bytes:
    """A photo, red on its left half, with a place, a comment and other metadata.

    Args:
        kind: As Pillow calls it.
        size: As it is stored.
        orientation: Of EXIF.
    """
    image = Image.new("RGB", size, (20, 20, 200))
    image.paste((200, 20, 20), (0, 0, size[0] // 2, size[1]))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.ImageDescription] = "SECRET-TEXT"
    exif[ExifTags.Base.Make] = "SECRET-TEXT camera"
    place = exif.get_ifd(ExifTags.IFD.GPSInfo)
    place[ExifTags.GPS.GPSLatitudeRef] = "N"
    place[ExifTags.GPS.GPSLatitude] = (52.0, 31.0, 12.0)
    place[ExifTags.GPS.GPSAreaInformation] = b"SECRET-PLACE"
    target = BytesIO()
    if kind == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_text("Comment", "SECRET-COMMENT", zip=False)
        text.add_itxt("XML:com.adobe.xmp", _XMP.decode())
        image.save(target, kind, exif=exif, pnginfo=text)
    elif kind == "GIF":
        image.save(target, kind, comment=b"SECRET-COMMENT")
    elif kind == "WEBP":
        image.save(target, kind, exif=exif, xmp=_XMP)
    else:
        image.save(target, kind, exif=exif, comment=b"SECRET-COMMENT", xmp=_XMP)
    return target.getvalue()


def data_url(content: bytes, media_type: str = "image/jpeg") -> str:
    """A file as clients put it into a request."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def _compressed_zeros(size: int) -> bytes:
    """So many zeros, compressed; made of one piece again and again, which costs little."""
    packer = zlib.compressobj(9, wbits=-15)
    piece = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    whole, rest = divmod(size, 1 << 20)
    end = packer.compress(bytes(rest)) + packer.flush()
    checksum = size % 65_521 << 16 | 1  # Adler-32 of zeros
    return b"\x78\xda" + piece * whole + end + struct.pack(">I", checksum)


def png_of_size(width: int, height: int, *, rows: int | None = None) -> bytes:
    """A black PNG of one bit a pixel; its size in bytes is that of zeros, compressed.

    Args:
        width: Of the image.
        height: Of the image.
        rows: How many there are; None for all.
    """
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    count = height if rows is None else rows
    data = _compressed_zeros(count * (1 + -(-width // 8)))
    return (
        b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")
    )


def chunked_png(text_bytes: int) -> bytes:
    """A small PNG with a text that is so long when it is decompressed."""
    head = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)
    text = b"Comment\0\0" + _compressed_zeros(text_bytes)
    rows = zlib.compress(bytes(9 * 8))
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", head)
        + _chunk(b"zTXt", text)
        + _chunk(b"IDAT", rows)
        + _chunk(b"IEND", b"")
    )


def gif_of_frames(frames: int, size: tuple[int, int] = (64, 64)) -> bytes:
    """An animation."""
    target = BytesIO()
    Image.new("P", size, 7).save(target, "GIF", duration=20)
    one = target.getvalue()
    colours = 3 * 2 ** ((one[10] & 7) + 1)
    begins = 13 + colours  # after the head: a frame, then the end, a semicolon
    return one[:begins] + one[begins:-1] * frames + one[-1:]


def pdf(pages: int = 1, *, password: str = "", algorithm: str = "RC4-128") -> bytes:
    """A document of empty pages."""
    writer = PdfWriter()
    for _ in range(pages):
        writer.add_blank_page(200, 200)
    if password:
        writer.encrypt(password, algorithm=algorithm)
    target = BytesIO()
    writer.write(target)
    return target.getvalue()


def nested_pdf(depth: int) -> bytes:
    """A document whose pages are so many levels down."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>"]
    for level in range(depth):
        number = level + 2
        objects.append(b"<< /Type /Pages /Count 1 /Kids [%d 0 R] >>" % (number + 1))
    objects.append(b"<< /Type /Page /MediaBox [0 0 9 9] /Parent %d 0 R >>" % (depth + 1))
    written = bytearray(b"%PDF-1.7\n")
    places = []
    for number, content in enumerate(objects, 1):
        places.append(len(written))
        written += b"%d 0 obj\n%b\nendobj\n" % (number, content)
    start = len(written)
    written += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    written += b"".join(b"%010d 00000 n \n" % place for place in places)
    written += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (
        len(objects) + 1,
        start,
    )
    return bytes(written)


def bomb_pdf(size: int) -> bytes:
    """A document whose table of objects is so many bytes when it is decompressed."""
    data = _compressed_zeros(size)
    head = b"<< /Type /XRef /Size 9 /W [1 2 1] /Root 2 0 R /Filter /FlateDecode /Length %d >>"
    table = b"1 0 obj\n" + head % len(data) + b"\nstream\n" + data + b"\nendstream\nendobj\n"
    return b"%PDF-1.7\n" + table + b"startxref\n9\n%%EOF\n"


def repeatedly_compressed_pdf(times: int, size: int = 1 << 24) -> bytes:
    """A document whose page is compressed again and again: kilobytes become what it was."""
    content = bytes(size)
    for _ in range(times):
        content = zlib.compress(content, 9)
    writer = PdfWriter()
    page = writer.add_blank_page(200, 200)
    stream = StreamObject()
    stream._data = content
    stream[NameObject("/Filter")] = ArrayObject([NameObject("/FlateDecode")] * times)
    stream[NameObject("/Length")] = NumberObject(len(content))
    page[NameObject("/Contents")] = writer._add_object(stream)
    assert isinstance(page, DictionaryObject)
    target = BytesIO()
    writer.write(target)
    return target.getvalue()
