"""Secrets that a service repeats, in the ways in which services write them."""

import html
import json
import time
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.tools.repeated_secrets import without_secrets

secrets = st.text(st.characters(min_codepoint=0x20, codec="utf-8"), min_size=6, max_size=40)


def php(text: str) -> str:
    """As `json_encode` of PHP writes it."""
    return json.dumps(text).replace("/", "\\/")


def go(text: str) -> str:
    """As `encoding/json` of Go writes it."""
    escaped = json.dumps(text, ensure_ascii=False)
    for character in "&<>":
        escaped = escaped.replace(character, f"\\u{ord(character):04x}")
    return escaped


@given(secrets)
def test_a_secret_is_found_however_it_is_written(secret: str) -> None:
    for written in (
        secret,
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
        urlencode({"k": secret}).removeprefix("k="),
        quote(secret, safe="").replace("%2F", "%2f"),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        php(secret)[1:-1],
        go(secret)[1:-1],
        php(php(secret))[3:-3],
        html.escape(secret),
    ):
        content = f"before {written} after".encode()
        assert without_secrets(content, ((b"?key", secret.encode()),)) == b"before redacted after"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"authorization", b"Bearer a-secret-token"),
        (b"x-api-key", b"a-secret-token"),
        (b"cookie", b"SID=a-secret-token"),
        (b"?key", b"a-secret-token"),
    ],
)
def test_what_is_secret_of_credentials(name: bytes, value: bytes) -> None:
    said = b'{"you sent": "a-secret-token", "as": "Bearer", "SID": 1}'
    expected = b'{"you sent": "redacted", "as": "Bearer", "SID": 1}'
    assert without_secrets(said, ((name, value),)) == expected


def test_what_is_too_short_to_be_told_from_other_text_stays() -> None:
    assert without_secrets(b"[1, 2, 12345]", ((b"?key", b"12345"),)) == b"[1, 2, 12345]"


@pytest.mark.parametrize("secret", [b"/\\\\\\\\/+ ", b"\\" * 20, b"+" * 40])
def test_a_service_cannot_keep_the_search_busy(secret: bytes) -> None:
    began = time.process_time()
    for piece in (b"\\", b"\\/", b"+", b"/"):
        without_secrets(piece * (200_000 // len(piece)), ((b"?key", secret),))
    assert time.process_time() - began < 5.0
