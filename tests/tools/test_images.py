"""Images in results of tools."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.agents.window import with_newest_images, without_images
from seawall.tools.images import MAX_IMAGE_BYTES, read_image
from seawall.turn import Image, ToolMessage

PNG = b"\x89PNG\r\n\x1a\n"


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.mark.parametrize(
    ("kind", "content", "usable"),
    [
        ("image/png", PNG + b"x", True),
        ("image/jpeg", b"\xff\xd8\xff\xe0", True),
        ("image/gif", b"GIF89a...", True),
        ("image/webp", b"RIFF....WEBPVP8 ", True),
        ("image/webp", b"RIFF....WAVEfmt ", False),
        ("image/png", b"GIF89a...", False),  # providers refuse all of a request for it
        ("image/svg+xml", b"<svg/>", False),
        ("application/pdf", b"%PDF", False),
        (None, PNG, False),
        ("image/png", PNG + bytes(MAX_IMAGE_BYTES), False),
    ],
)
def test_which_images_models_are_shown(kind: str | None, content: bytes, *, usable: bool) -> None:
    image = read_image(kind, encoded(content))
    assert (image is not None) == usable


@given(st.text(max_size=40))
def test_what_is_not_base64_is_no_image(text: str) -> None:
    image = read_image("image/png", text)
    assert image is None or base64.b64decode(image.data).startswith(PNG)


@given(st.lists(st.integers(0, 4), max_size=8))
def test_those_that_came_last_are_shown(counts: list[int]) -> None:
    image = Image("image/png", "")
    messages = [
        ToolMessage(str(index), "draw", "text", images=(image,) * count)
        for index, count in enumerate(counts)
    ]
    shown = [len(each.images) for each in with_newest_images(messages) if each.images]  # type: ignore[union-attr]
    assert sum(shown) <= 8
    nonzero = [each for each in counts if each]
    assert shown == nonzero[len(nonzero) - len(shown) :]
    left_out = nonzero[: len(nonzero) - len(shown)]
    assert not left_out or sum(shown) + left_out[-1] > 8
    assert not any(each.images for each in without_images(messages))
