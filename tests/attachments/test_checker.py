"""Files are checked in a process of its own: what is made to do harm is refused within bounds."""

import asyncio
import errno
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from io import BytesIO
from pathlib import Path

import msgspec
import pytest
from PIL import Image, ImageCms
from pypdf import PdfWriter

from seawall.attachments.checker import Checked, Checker
from seawall.attachments.inspection import Inspected, Inspection
from seawall.attachments.media import PDF
from seawall.errors import InvalidField, Overloaded
from seawall.settings import AttachmentSettings
from seawall.turn import Principal
from tests.attachments.pictures import (
    bomb_pdf,
    chunked_png,
    gif_of_frames,
    nested_pdf,
    pdf,
    photo,
    png_of_size,
    repeatedly_compressed_pdf,
)

SETTINGS = AttachmentSettings(decode_seconds=10.0, decode_memory_mb=640, image_pixels=40_000_000)


@asynccontextmanager
async def checking(settings: AttachmentSettings = SETTINGS) -> AsyncIterator[Checker]:
    checker = Checker(settings)
    try:
        yield checker
    finally:
        await checker.close()


def _process(checker: Checker) -> Path:
    child = checker._child
    assert child is not None
    return Path(f"/proc/{child.pid}")


def _peak_megabytes(process: Path) -> float:
    lines = (process / "status").read_text(encoding="ascii").splitlines()
    (peak,) = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    return peak / 1_024


def _own_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "too many pixels": (lambda: png_of_size(20_000, 20_000), "pixels"),
    "a head alone, of four billion pixels": (
        lambda: png_of_size(65_535, 65_535, rows=1),
        "pixels",
    ),
    "a text that is 200 MB when decompressed": (lambda: chunked_png(200 << 20), "damaged"),
    "pages 20,000 levels down": (lambda: nested_pdf(20_000), "nested"),
    "a page that is compressed five times": (lambda: repeatedly_compressed_pdf(5), "several"),
    "a table of objects that is 256 MB": (lambda: bomb_pdf(256 << 20), ""),
    "200 pages": (lambda: pdf(200), "200 pages"),
    "an encrypted document": (lambda: pdf(password="x"), "encrypted"),
    "half a photo": (lambda: photo(size=(900, 900))[:4_000], "damaged"),
    "a PNG in name only": (lambda: b"\x89PNG\r\n\x1a\n" + b"x" * 99, "damaged"),
    "a PDF in name only": (lambda: b"%PDF-1.7\n" + b"x" * 999, "damaged"),
    "a zip file": (lambda: b"PK\x03\x04" + bytes(99), "accepted"),
    "an empty file": (lambda: b"", "accepted"),
    "Latin-1": (lambda: "Käse".encode("latin-1"), "accepted"),
    "a long text": (lambda: b"a" * 200_001, "200000"),
}


async def test_what_does_harm_is_refused_within_bounds_of_time_and_memory() -> None:
    made = {name: (make(), said) for name, (make, said) in REFUSED.items()}
    async with checking() as checker:
        await checker.check(photo(), "f")  # starts the process
        before = _own_megabytes()
        for name, (content, said) in made.items():
            began = time.monotonic()
            with pytest.raises(InvalidField) as refused:
                await checker.check(content, "f")
            assert said in str(refused.value), name
            assert refused.value.field == "f"
            # The deadline of ten seconds, and the time to end the process.
            assert time.monotonic() - began < 15, name
            assert _own_megabytes() - before < 60, name
            await checker.check(photo(), "f")
            assert _peak_megabytes(_process(checker)) < SETTINGS.decode_memory_mb, name


async def test_the_largest_that_is_accepted_is_read_within_bounds() -> None:
    animation = gif_of_frames(2_000)
    async with checking() as checker:
        for content, size in (
            (png_of_size(6_300, 6_300), (1_568, 1_568)),
            (animation, (64, 64)),
            (_noise(3_500, 2_800), (1_568, 1_254)),
        ):
            checked = await checker.check(content, "f")
            picture = Image.open(BytesIO(checked.content))
            assert picture.size == size
            assert getattr(picture, "n_frames", 1) == 1
            assert _peak_megabytes(_process(checker)) < SETTINGS.decode_memory_mb
            assert len(checked.content) < 3_750_000  # what the strictest provider takes
            assert checked.tokens == size[0] * size[1] // 750 + 1


def _noise(width: int, height: int) -> bytes:
    target = BytesIO()
    noise = Image.frombytes("L", (width, height), random.Random(5).randbytes(width * height))
    noise.convert("RGB").save(target, "JPEG", quality=60)
    return target.getvalue()


async def test_a_file_that_takes_too_long_ends_the_process_only() -> None:
    quick = AttachmentSettings(decode_seconds=0.05, image_pixels=200_000_000)
    async with checking(quick) as checker:
        large = png_of_size(13_000, 13_000)
        with pytest.raises(InvalidField, match=r"too long|within the limits"):
            await checker.check(large, "f")
        assert checker._child is None
        with pytest.raises(InvalidField):
            await checker.check(large, "f")


async def test_an_image_that_grows_is_refused_and_its_rest_is_not_the_next_answer() -> None:
    """A GIF of noise is larger as a PNG and as a JPEG than this server accepts."""
    target = BytesIO()
    Image.effect_noise((400, 300), 90).quantize(16).save(target, "GIF")
    grown = target.getvalue()
    async with checking(AttachmentSettings(max_bytes=len(grown), decode_seconds=30.0)) as checker:
        with pytest.raises(InvalidField, match="too large after"):
            await checker.check(grown, "f")
        checked = await checker.check(photo("PNG", (10, 8)), "f", Principal("acme", "bob"))
        assert Image.open(BytesIO(checked.content)).size == (10, 8)


async def test_what_needs_too_much_memory_is_refused() -> None:
    small = AttachmentSettings(decode_memory_mb=256, image_pixels=200_000_000)
    async with checking(small) as checker:
        with pytest.raises(InvalidField, match=r"memory|within the limits"):
            await checker.check(_large_gif(), "f")
        assert (await checker.check(photo(), "f")).media_type == "image/jpeg"


def _large_gif() -> bytes:
    target = BytesIO()
    Image.new("P", (8_000, 8_000)).save(target, "GIF")
    return target.getvalue()


async def test_the_process_has_nothing_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    async with checking() as checker:
        await checker.check(photo(), "f")
        process = _process(checker)
        assert b"sk-secret" not in (process / "environ").read_bytes()
        opened = [str(each.readlink()) for each in (process / "fd").iterdir()]
        assert sum(each.startswith("socket:") for each in opened) <= 2  # its input and output
        limits = (process / "limits").read_text(encoding="ascii")
        assert "Max address space         671088640" in limits
        assert "Max file size             0" in limits
        assert "Max open files            3  " in limits


async def test_a_process_that_cannot_start_now_may_start_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with checking() as checker:
        with monkeypatch.context() as patched:
            patched.setattr(asyncio, "create_subprocess_exec", _no_descriptors)
            with pytest.raises(Overloaded) as refused:
                await checker.check(photo(), "f")
            assert refused.value.retry_after
        assert (await checker.check(photo(), "f")).media_type == "image/jpeg"


async def _no_descriptors(*_: object, **__: object) -> None:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


async def test_a_text_is_cut_nowhere() -> None:
    """Characters of several bytes at the bound; what is too long is said, and is no other kind."""
    settings = AttachmentSettings(text_bytes=1_024)
    async with checking(settings) as checker:
        assert (await checker.check("\u20ac".encode() * 341, "f")).media_type == "text/plain"
        for content, said in (
            ("\u20ac".encode() * 342, "1024"),
            ("\u20ac".encode() * 341 + b"\xe2", "accepted"),
            (b"a" * 1_023 + b"\xff" * 9, "accepted"),
        ):
            with pytest.raises(InvalidField, match=said):
                await checker.check(content, "f")


async def test_a_cancelled_check_leaves_no_answer_for_the_next() -> None:
    async with checking() as checker:
        await checker.check(photo(), "f")
        running = asyncio.create_task(checker.check(_noise(1_600, 1_600), "f"))
        await asyncio.sleep(0.02)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        checked = await checker.check(photo("PNG", (10, 8)), "f")
        assert Image.open(BytesIO(checked.content)).size == (10, 8)


async def test_garbage_never_breaks_it() -> None:
    """Photos with damaged bytes are accepted or refused, and never anything else."""
    chance = random.Random(7)
    files = [photo(kind) for kind in ("JPEG", "PNG", "WEBP", "GIF")] + [pdf(2)]
    async with checking() as checker:
        for _ in range(60):
            content = bytearray(chance.choice(files))
            for _ in range(chance.randint(1, 12)):
                content[chance.randrange(len(content))] = chance.randrange(256)
            await _accepted_or_refused(partial(checker.check, bytes(content), "f"))


async def _accepted_or_refused(check: Callable[[], Awaitable[Checked]]) -> None:
    try:
        assert (await check()).content
    except InvalidField:
        return


async def test_colours_are_those_of_the_profile() -> None:
    """Without its profile, a picture in Lab-like primaries would have other colours."""
    swapped = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    image = Image.new("RGB", (40, 40), (200, 30, 30))
    target = BytesIO()
    image.save(target, "PNG", icc_profile=swapped.tobytes())
    async with checking() as checker:
        checked = await checker.check(target.getvalue(), "f")
    picture = Image.open(BytesIO(checked.content))
    assert "icc_profile" not in picture.info
    pixel = picture.convert("RGB").getpixel((20, 20))
    assert isinstance(pixel, tuple)
    assert max(abs(a - b) for a, b in zip(pixel, (200, 30, 30), strict=True)) <= 3


async def test_photos_of_several_pictures_and_documents_are_read() -> None:
    """Whose readers would be imported late, when the process opens no file any more."""
    several, table = BytesIO(), BytesIO()
    photos = [Image.new("RGB", (60, 40), name) for name in ("red", "blue")]
    photos[0].save(several, "MPO", save_all=True, append_images=photos[1:])
    writer = PdfWriter(BytesIO(pdf(2)))
    writer.compress_identical_objects()
    writer.write(table)
    async with checking() as checker:
        assert (await checker.check(several.getvalue(), "f")).media_type == "image/jpeg"
        for content in (table.getvalue(), pdf(2)):
            assert (await checker.check(content, "f")).tokens == 6_000
        for algorithm in ("RC4-128", "AES-256"):
            with pytest.raises(InvalidField, match="encrypted"):
                await checker.check(pdf(password="x", algorithm=algorithm), "f")


async def test_an_encrypted_document_is_refused_whatever_its_identifier() -> None:
    """A codec that was loaded late could not be, and a document without a trailer was accepted."""
    encrypted = pdf(password="x")
    async with checking() as checker:
        for identifier in (
            b"4f0050d85c640e037074462d91b4b947",
            b"feff0041" * 4,
            b"fffe4100" * 4,
            b"8d9e" * 8,
            b"00ff" * 8,
        ):
            content = re.sub(rb"/ID \[ .* \]", b"/ID [ <%b> ]" % identifier, encrypted)
            assert identifier in content
            with pytest.raises(InvalidField, match="encrypted"):
                await checker.check(content, "f")


def test_a_file_is_refused_if_its_decoder_is_denied_a_module() -> None:
    """Also where the decoder goes on without it."""
    program = (
        "import pypdf, sys\n"
        "from seawall.attachments import child\n"
        "late, pypdf.PdfReader.__init__ = pypdf.PdfReader.__init__, None\n"
        "def read(self, *arguments, **named):\n"
        "    try:\n        import wave\n    except (ImportError, OSError):\n        pass\n"
        "    late(self, *arguments, **named)\n"
        "pypdf.PdfReader.__init__ = read\n"
        "child.main()\n"
    )
    content = pdf()
    head = msgspec.json.encode(
        Inspection(PDF, pixels=1, side=1, pages=9, seconds=5.0, size=len(content))
    )
    result = subprocess.run(
        [sys.executable, "-c", program, "768"],
        input=len(head).to_bytes(4) + head + content,
        capture_output=True,
        check=True,
        timeout=60,
    )
    answer = msgspec.json.decode(result.stdout[5:], type=Inspected)
    assert (answer.denied, answer.fault) == (
        "wave",
        "The file is damaged, or not what it seems to be.",
    )


async def test_every_mode_of_pixels_is_read() -> None:
    async with checking() as checker:
        for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"):
            target = BytesIO()
            Image.new(mode, (30, 20)).save(target, "JPEG" if mode == "CMYK" else "PNG")
            checked = await checker.check(target.getvalue(), "f")
            assert Image.open(BytesIO(checked.content)).size == (30, 20), mode


async def test_nobodys_many_files_hold_up_the_others() -> None:
    """Six large files of one owner, then a small one of another: that is read second."""
    large, small = _noise(900, 900), photo()
    order: list[str] = []
    async with checking() as checker:
        await checker.check(small, "f")

        async def check(content: bytes, who: str) -> None:
            await checker.check(content, "f", Principal("acme", who))
            order.append(who)

        tasks = [asyncio.create_task(check(large, "ada")) for _ in range(6)]
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(check(small, "bob")))
        await asyncio.gather(*tasks)
    assert order.index("bob") <= 1
    assert len(checker._owners) == 0


def test_the_process_imports_no_event_loop() -> None:
    program = (
        "import sys, seawall.attachments.child; print(sorted({'asyncio', 'ssl'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"
