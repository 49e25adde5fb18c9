"""Images: decoded within bounds, scaled down, and encoded anew, without anything but the picture.

What describes a photo (EXIF with its place, XMP, comments, thumbnails, text) is not carried over.
Its orientation is applied, its colours are converted to sRGB. Of an animation the first frame is
kept. https://pillow.readthedocs.io/en/stable/handbook/image-file-formats.html
"""

from contextlib import suppress
from io import BytesIO

from msgspec import Struct
from PIL import Image, ImageCms, ImageFile, ImageOps

__all__ = ["Encoded", "Refused", "reencoded"]

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
_DRAWN = frozenset({"PNG", "GIF"})  # text and lines, which JPEG blurs
_MAX_DRAWN_BYTES = 1_500_000
_MAX_BYTES = 3_500_000  # the least of what providers accept is 3.75 MB, on Bedrock
_QUALITIES = (88, 75, 50)
# https://platform.claude.com/docs/en/build-with-claude/vision: width by height, by 750
_PIXELS_A_TOKEN = 750

Image.MAX_IMAGE_PIXELS = None  # bounded here, by the header
ImageFile.LOAD_TRUNCATED_IMAGES = False


class Refused(Exception):
    """A file is not accepted; the message is for its sender."""


class Encoded(Struct, frozen=True):
    """An image as it is stored.

    Attributes:
        content: Its bytes.
        media_type: Of JPEG or PNG.
        tokens: About how many tokens a model reads for it.
    """

    content: bytes
    media_type: str
    tokens: int


def reencoded(content: bytes, *, pixels: int, side: int) -> Encoded:
    """Encode an image anew.

    Args:
        content: JPEG, PNG, WebP or GIF.
        pixels: Width times height, at most.
        side: Its longer side afterwards, in pixels at most.

    Raises:
        Refused: It has too many pixels.
        Exception: It is damaged; any that a decoder raises.
    """
    with Image.open(BytesIO(content), formats=_FORMATS) as opened:
        width, height = opened.size
        if width * height > pixels:
            raise Refused(f"The image has {width} x {height} pixels; at most {pixels} in all.")
        drawn = opened.format in _DRAWN
        if opened.format == "JPEG":
            opened.draft("RGB", (side, side))  # decodes a smaller picture where it is large
        opened.load()
        profile = opened.info.get("icc_profile")
        image = ImageOps.exif_transpose(opened)
        alpha = image.has_transparency_data
        if image.mode in ("P", "1", "PA"):
            image = image.convert("RGBA" if alpha else "RGB")
        image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    image = _in_srgb(image, profile, "RGBA" if alpha else "RGB")
    image.info = {}
    tokens = image.width * image.height // _PIXELS_A_TOKEN + 1
    made, media_type = _encode(image, drawn=drawn or alpha)
    return Encoded(made, media_type, tokens)


def _in_srgb(image: Image.Image, profile: bytes | None, mode: str) -> Image.Image:
    """The image in sRGB; as it is where its profile cannot be used."""
    if profile and image.mode in ("RGB", "RGBA", "CMYK", "L"):
        with suppress(ImageCms.PyCMSError, OSError, ValueError):
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            target = ImageCms.createProfile("sRGB")
            alpha = image.getchannel("A") if image.mode == "RGBA" else None
            picture = image.convert("RGB") if alpha is not None else image
            converted = ImageCms.profileToProfile(picture, source, target, outputMode="RGB")
            if converted is not None:
                image = converted
            if alpha is not None:
                image.putalpha(alpha)
    if image.mode.startswith("I"):  # 16 bits a pixel, which `convert` would clip
        image = image.convert("I").point(lambda value: value / 256).convert("L")
    return image if image.mode == mode else image.convert(mode)


def _encode(image: Image.Image, *, drawn: bool) -> tuple[bytes, str]:
    if drawn:
        made = _saved(image, "PNG")
        if len(made) <= (_MAX_BYTES if image.mode == "RGBA" else _MAX_DRAWN_BYTES):
            return made, "image/png"
    if image.mode == "RGBA":
        flat = Image.new("RGB", image.size, "white")
        flat.paste(image, mask=image.getchannel("A"))
        image = flat
    for quality in _QUALITIES:
        made = _saved(image, "JPEG", quality=quality)
        if len(made) <= _MAX_BYTES:
            break
    return made, "image/jpeg"


def _saved(image: Image.Image, kind: str, **options: int) -> bytes:
    target = BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()
