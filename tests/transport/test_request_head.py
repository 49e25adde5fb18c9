"""Header lines of a request's head, with usual names and with others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.transport.http_request import MalformedRequest, parse_head

TOKEN = st.text("!#$%&'*+-.^_`|~09azAZ", min_size=1, max_size=12)
USUAL = st.sampled_from(("accept", "Accept", "ACCEPT", "User-Agent", "user-agent", "cookie"))


def head(line: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\nhost: here\r\n%b\r\n\r\n" % line


@given(TOKEN | USUAL)
def test_names_are_in_lower_case(name: str) -> None:
    sent = name.encode()
    if name.lower() == "host":
        return
    assert parse_head(head(sent + b":\t a \t")).headers[1] == (sent.lower(), b"a")


@pytest.mark.parametrize("name", [b"accept", b"Accept", b"authorization", b"x-other", b"X"])
def test_a_line_without_a_colon_is_refused(name: bytes) -> None:
    with pytest.raises(MalformedRequest, match="not well formed"):
        parse_head(head(name))


@given(TOKEN | USUAL, st.sampled_from(' ()/:;<=>?@[\\]{}"\t\x00\x7f\xe9'), st.integers(0, 12))
def test_a_name_with_another_character_is_refused(name: str, other: str, at: int) -> None:
    wrong = (name[:at] + other + name[at:]).encode("latin-1")
    if other == ":" and at:
        return  # the name ends there
    with pytest.raises(MalformedRequest):
        parse_head(head(wrong + b": a"))


@pytest.mark.parametrize("length", [b"", b"+1", b"1_0", b"-1", b"1" * 19, b"\xb2", b"0x1", b"1 1"])
def test_a_length_that_is_not_a_number_is_refused(length: bytes) -> None:
    with pytest.raises(MalformedRequest, match="one number"):
        parse_head(head(b"content-length: " + length))
