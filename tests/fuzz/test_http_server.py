"""The HTTP server with generated requests and near-requests."""

from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.targets.http_server import one_input
from tests.properties import examples

_methods = st.sampled_from(
    [b"GET", b"POST", b"HEAD", b"PUT", b"OPTIONS", b"CONNECT", b"get", b"G\x00"]
)
_targets = st.sampled_from(
    [
        b"/livez",
        b"/a",
        b"/early",
        b"/b?c=d",
        b"*",
        b"http://x/a",
        b"//e",
        b"a",
        b"/\xff",
        b"",
        b"/%2e",
    ]
)
_versions = st.sampled_from(
    [b"HTTP/1.1"] * 8 + [b"HTTP/1.0", b"HTTP/2.0", b"HTTP/0.9", b"", b"HTTP/1.1 "]
)
_line_ends = st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b"\r\n\r\n", b"\r\n "])
_fields = st.sampled_from(
    [
        b"accept: */*",
        b"x-api-key: k",
        b"connection: close",
        b"connection: keep-alive, Upgrade",
        b"upgrade: websocket",
        b"expect: 100-continue",
        b"host: y",
        b"host : x",
        b": x",
        b"x",
        b"x:\x00",
        b"x:\ty ",
        b"te: gzip, chunked",
        b"y: " + b"z" * 700,
    ]
)
_bodies = (
    st.binary(max_size=40)
    | st.just(b"GET /evil HTTP/1.1\r\nhost: x\r\n\r\n")
    | st.just(b"x" * 5_000)
)


@st.composite
def chunks(draw: st.DrawFn, body: bytes) -> bytes:
    """A chunked body, sometimes malformed."""
    at, parts = 0, []
    while at < len(body):
        size = draw(st.integers(1, max(1, len(body) - at)))
        extension = draw(st.sampled_from([b""] * 6 + [b";a=b", b";" + b"e" * 300, b" ", b";\x00"]))
        end = draw(st.sampled_from([b"\r\n"] * 10 + [b"\n", b"", b"x\r\n"]))
        announced = draw(st.sampled_from([b"%x", b"%X", b"0%x", b"%x", b"+%x", b"0x%x"]))
        parts.append(announced % size + extension + b"\r\n" + body[at : at + size] + end)
        at += size
    trailers = draw(
        st.lists(st.sampled_from([b"x-api-key: k\r\n", b"bad\r\n", b"t: u\n"]), max_size=2)
    )
    return b"".join([*parts, b"0\r\n", *trailers, b"\r\n"])


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request, or something similar."""
    first = b" ".join([draw(_methods), draw(_targets), draw(_versions)])
    fields = [b"host: x", *draw(st.lists(_fields, max_size=4))]
    body = draw(_bodies)
    framing = draw(st.sampled_from(["length"] * 4 + ["chunked"] * 4 + ["none", "both", "wrong"]))
    if framing in ("length", "both"):
        fields.append(b"content-length: %d" % len(body))
    if framing in ("chunked", "both"):
        fields.append(b"transfer-encoding: chunked")
        body = draw(chunks(body))
    if framing == "wrong":
        fields.append(
            draw(
                st.sampled_from(
                    [
                        b"content-length: +3",
                        b"content-length: 3, 3",
                        b"content-length: 3\r\ncontent-length: 4",
                        b"content-length: 99999999999999999999",
                        b"transfer-encoding: gzip, chunked",
                        b"transfer-encoding: identity",
                    ]
                )
            )
        )
    end = draw(_line_ends)
    empty = b"\r\n" * draw(st.sampled_from([0, 0, 0, 1, 9]))
    return empty + b"\r\n".join([first, *fields[:-1]]) + end + fields[-1] + b"\r\n\r\n" + body


@examples(40, 2_500)
@given(st.lists(requests(), min_size=1, max_size=4), st.integers(0, 255))
def test_responses_are_independent_of_segments(sent: list[bytes], seed: int) -> None:
    one_input(bytes([seed]) + b"".join(sent))


@examples(50, 2_500)
@given(st.binary(max_size=300), st.integers(0, 255))
def test_arbitrary_bytes(sent: bytes, seed: int) -> None:
    one_input(bytes([seed]) + sent)


def test_a_long_pipeline_is_buffered_within_its_bound() -> None:
    one_input(b"\x02" + b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n" * 2_000)
