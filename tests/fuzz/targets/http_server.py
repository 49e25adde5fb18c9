"""The HTTP server: the same responses, independent of how bytes are split.

The first byte of an input chooses the cuts, the rest is what a client sends. h11, which is written
by others, says what the requests are.
"""

import h11

from tests.fuzz.connections import Exchange, cut, serve_segments

SEEDS = [
    b"\x00GET /livez HTTP/1.1\r\nhost: x\r\n\r\n",
    b"\x01\r\n\r\nGET /a?b HTTP/1.1\r\nhost: x\r\n\r\nHEAD /b HTTP/1.1\r\nHost:x\r\n\r\n",
    b"\x02POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhelloGET /b HTTP/1.0\r\n\r\n",
    (
        b"\x03POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        b"3;a=b\r\nabc\r\n0\r\nx-api-key: k\r\n\r\nGET /b HTTP/1.1\r\nhost: x\r\n\r\n"
    ),
    (
        b"\x04POST /a HTTP/1.1\r\nhost: x\r\nconnection: Upgrade, HTTP2-Settings\r\n"
        b"upgrade: h2c\r\n"
        b"http2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\ncontent-length: 34\r\n\r\n"
        b"GET /evil HTTP/1.1\r\nhost: evil\r\n\r\n"
    ),
    b"\x05POST /early HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 9999\r\n\r\n",
    b"\x06POST /early HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    (
        b"\x00GET /early HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        b"1\r\n\x00\r\n1\r\n\x00\r\n+1\r\n\x00\r\n0\r\n\r\n"
    ),
    b"\x07PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x08GET /\r\n",
    b"\x09POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
    b"\x0aGET / HTTP/1.1\nhost: x\n\n",
    b"\x0bGET http://x/a HTTP/1.1\r\nhost: x\r\nx:  a\tb \r\n\r\n" + b"GET / HTTP/1.1\r\n" * 3,
    b"\x0cPOST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
    b"\x0dGET /a HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 3_000 + b"\r\n\r\n",
]


def one_input(data: bytes) -> None:
    """Feed a connection.

    Raises:
        AssertionError: An invariant is violated.
    """
    if not data:
        return
    wire = data[1:]
    whole = serve_segments([wire])
    pieces = serve_segments(cut(wire, data[0]))
    first, second = _answers(whole), _answers(pieces)
    shorter, longer = sorted((first, second), key=len)
    for one, other in zip(shorter, longer, strict=False):
        # An answer that precedes its body says that it is the last one only if what is wrong with
        # the body has arrived by then.
        compared = 2 if b"/early" in one[1] else 3
        assert one[:compared] == other[:compared], (first, second)
    if len(shorter) < len(longer):
        assert (whole if shorter is first else pieces).closed or not shorter or shorter[-1][2]
    for each in (whole, pieces):
        _check_against_h11(wire, each)


def _answers(exchange: Exchange) -> list[tuple[int, bytes, bool]]:
    """Status, body and whether it is the last, of each answer.

    Raises:
        AssertionError: they are not well formed, or something follows the last one.
    """
    found: list[tuple[int, bytes, bool]] = []
    rest = bytes(exchange.written)
    while rest:
        assert not (found and found[-1][2]), "an answer after the last one"
        head, end, rest = rest.partition(b"\r\n\r\n")
        assert end, head
        lines = head.split(b"\r\n")
        version, status = lines[0].split(b" ")[:2]
        assert version == b"HTTP/1.1", head
        if status == b"100":
            continue
        headers = dict(line.lower().split(b": ", 1) for line in lines[1:])
        size = int(headers[b"content-length"])
        if not rest or rest.startswith(b"HTTP/1.1 "):  # the answer to HEAD: no body begins so
            size = 0
        body, rest = rest[:size], rest[size:]
        assert len(body) == size, head
        if int(status) >= 400:
            body = b""  # which error is first may depend on the bytes received so far
        found.append((int(status), body, headers.get(b"connection") == b"close"))
    return found


def _check_against_h11(wire: bytes, exchange: Exchange) -> None:
    """The application's requests are the ones that h11 parses."""
    parser = h11.Connection(h11.SERVER)
    parser.receive_data(wire)
    expected = []
    try:
        while (event := parser.next_event()) is not h11.NEED_DATA and event is not h11.PAUSED:
            if isinstance(event, h11.Request):
                method, target, body = event.method.decode(), event.target.decode(), b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                expected.append((method, target, body))
                answer = h11.Response(status_code=200, headers=[("content-length", "0")])
                parser.send(answer)
                parser.send(h11.EndOfMessage())
                if parser.our_state is h11.MUST_CLOSE:
                    break
                parser.start_next_cycle()
            else:
                break
    except h11.ProtocolError:
        return  # h11 also rejects valid requests: not comparable
    theirs = [
        (method, path, body)
        for method, target, body in expected
        if (path := _path(target)) != "/early"
        and not (path == "/livez" and method in ("GET", "HEAD"))
    ]
    assert exchange.requests == theirs[: len(exchange.requests)], (exchange.requests, theirs)


def _path(target: str) -> str:
    path = target.partition("?")[0]
    return path.removeprefix("http://x") or "/"
