"""The HTTP client with generated responses and near-responses."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.transport.connection import ProtocolError
from seawall.transport.http_client import Endpoint, HttpClient
from tests.fuzz.targets.http_client import one_input
from tests.properties import examples

_status = st.sampled_from(
    [b"200 OK", b"100 Continue", b"101 Up", b"204 No", b"304 Same", b"500 x", b"x"]
)
_fields = st.sampled_from(
    [
        b"content-length: 5",
        b"content-length: +5",
        b"transfer-encoding: chunked",
        b"transfer-encoding: gzip, chunked",
        b"connection: close",
        b"connection: upgrade",
        b"upgrade: x",
        b"set-cookie: a",
        b"bad",
        b"x : y",
        b"x: \x00",
        b"x: " + b"y" * 900,
    ]
)
_bodies = st.sampled_from(
    [
        b"hello",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"5;e=f\r\nhello\r\n0\r\nx: y\r\n\r\n",
        b"zz\r\n",
        b"5\r\nhelloX",
        b"0\r\n" + b"t: u\r\n" * 500 + b"\r\n",
        b"",
    ]
)


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    """A response, or something similar."""
    first = draw(st.sampled_from([b"HTTP/1.1 "] * 8 + [b"HTTP/1.0 ", b"HTTP/2 ", b""]))
    fields = draw(st.lists(_fields, max_size=4))
    return b"\r\n".join([first + draw(_status), *fields, b"", draw(_bodies)])


@examples(100, 1_000)
@given(st.lists(responses(), min_size=1, max_size=3), st.integers(0, 255))
def test_the_response_is_independent_of_segments(sent: list[bytes], seed: int) -> None:
    one_input(bytes([seed]) + b"".join(sent))


@examples(50, 1_000)
@given(st.binary(max_size=300), st.integers(0, 255))
def test_arbitrary_bytes(sent: bytes, seed: int) -> None:
    one_input(bytes([seed]) + sent)


@pytest.mark.parametrize(
    "endless",
    [b"x: " + b"y" * 4_000 + b"\r\n", b"HTTP/1.1 100 Continue\r\n\r\n" * 100, b"e" * 4_000],
    ids=["trailers", "interim", "extension"],
)
async def test_an_endless_response_is_an_error(endless: bytes) -> None:
    beginning = {
        b"x": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n",
        b"e": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;",
        b"H": b"",
    }[endless[:1]]

    async def upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(beginning)
        try:
            for _ in range(100_000):
                writer.write(endless)
                await writer.drain()
        except ConnectionError:
            return
        finally:
            writer.close()

    server = await asyncio.start_server(upstream, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = HttpClient()
    deadline = asyncio.get_running_loop().time() + 10.0
    with pytest.raises(ProtocolError):
        await client.request("GET", Endpoint.parse(f"http://127.0.0.1:{port}/"), deadline=deadline)
    await client.close()
    server.close()


async def test_trailers_and_a_second_response_do_not_change_the_first() -> None:
    async def upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx: a\r\n\r\n"
            b"2\r\nhi\r\n0\r\nx: b\r\nretry-after: 5\r\n\r\nHTTP/1.1 500 No\r\nx: c\r\n\r\n"
        )
        writer.close()

    server = await asyncio.start_server(upstream, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = HttpClient()
    deadline = asyncio.get_running_loop().time() + 10.0
    endpoint = Endpoint.parse(f"http://127.0.0.1:{port}/")
    answer = await client.request("GET", endpoint, deadline=deadline)
    assert (answer.status, answer.body) == (200, b"hi")
    assert answer.headers == {"transfer-encoding": "chunked", "x": "a"}
    await client.close()
    server.close()
