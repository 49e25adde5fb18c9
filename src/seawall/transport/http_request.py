"""Strict HTTP/1.1 request parser without I/O and with bounded memory.

It rejects everything that RFC 9112 leaves to the server: line ends other than CRLF, folded lines,
repeated lengths, any transfer coding but chunked. `Upgrade` is ignored, as RFC 9110 §7.8 allows.
"""

import re

from msgspec import Struct

__all__ = ["HeadTooLarge", "MalformedRequest", "RequestHead", "RequestReader", "parse_head"]

Header = tuple[bytes, bytes]

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_VALUE = rb"[^\x00-\x08\x0a-\x1f\x7f]*+"
_TOKEN_BYTES = bytes(each for each in range(128) if re.match(_TOKEN, bytes((each,))))
_CONTROLS = bytes(each for each in (*range(32), 127) if each != 9)
_request_line = re.compile(rb"(%b{1,32}) ([\x21-\x22\x24-\x7e]++) HTTP/1\.([01])" % _TOKEN)
_line = re.compile(rb"%b++:%b\r\n" % (_TOKEN, _VALUE))
_absolute = re.compile(rb"https?://([^/?]++)(.*)", re.IGNORECASE)
_host = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]\-]*+")
_chunk = re.compile(rb"([0-9A-Fa-f]{1,16})(;%b)?\r\n" % _VALUE)
_partial_chunk_size = re.compile(rb"(?:[0-9A-Fa-f]{1,16}(?:;%b)?)?\r?" % _VALUE)
_control = re.compile(rb"(?<!\r)\n|\r[^\n]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_FRAMING = frozenset((b"host", b"content-length", b"transfer-encoding", b"connection", b"expect"))
_MAX_EMPTY_LINES = 8
_MAX_DIGITS = 18
# Usual names as they are sent, in lower case: these need no check.
_USUAL_NAMES = {
    each: name.encode()
    for name in (
        *("accept", "accept-encoding", "accept-language", "authorization", "connection"),
        *("content-length", "content-type", "cookie", "expect", "host", "idempotency-key"),
        *("last-event-id", "origin", "referer", "te", "traceparent", "tracestate"),
        *("transfer-encoding", "user-agent", "x-api-key", "x-forwarded-for"),
        *("x-forwarded-host", "x-forwarded-port", "x-forwarded-proto", "x-request-id"),
    )
    for each in (name.encode(), name.title().encode())
}
_TERMINATOR_BYTES = 4  # CRLF CRLF


class MalformedRequest(Exception):
    """The bytes are not a valid HTTP/1.1 or 1.0 request."""

    def __init__(self, detail: str, header: str | None = None) -> None:
        """Create an error.

        Args:
            detail: What is wrong, as shown to the client.
            header: The name of the header at fault, if it is one.
        """
        super().__init__(detail)
        self.header = header


class HeadTooLarge(MalformedRequest):
    """The head, together with trailers and chunk extensions, exceeds its limit."""


class RequestHead(Struct):
    """The head of a request.

    Attributes:
        method: As sent.
        path: Of the request target, still percent-encoded.
        query: Of the request target, without the question mark.
        minor: Minor version: 0 for HTTP/1.0, 1 for HTTP/1.1.
        headers: Names in lower case, in the order sent.
        length: Of the body in bytes; None if it is chunked.
        size: Of the head in bytes.
        keep_alive: Whether the client can reuse the connection.
        expects_continue: Whether the client waits for "100 Continue" before it sends the body.
    """

    method: bytes
    path: bytes
    query: bytes
    minor: int
    headers: list[Header]
    length: int | None
    size: int
    keep_alive: bool
    expects_continue: bool


class RequestReader:
    """Parses the requests of one connection, one after the other.

    Call `feed` with received bytes, `next_head` for a head, then `read_body` until `complete`.
    Bytes that were not consumed stay unparsed: a pipelined request costs no more than its bytes.

    Attributes:
        complete: Whether the body of the current request has been read to its end.
    """

    __slots__ = (
        "_buffer",
        "_chunked",
        "_empty_lines",
        "_error",
        "_in_chunk",
        "_in_trailers",
        "_lines",
        "_max_bytes",
        "_max_lines",
        "_overhead",
        "_remaining",
        "_scanned",
        "complete",
        "trailers",
    )

    def __init__(self, max_bytes: int, max_lines: int) -> None:
        """Create a parser for a new connection.

        Args:
            max_bytes: Size of a head at most, together with the trailers and chunk extensions of
                its body.
            max_lines: Header lines at most, trailers included.
        """
        self._max_bytes = max_bytes
        self._max_lines = max_lines
        self._buffer = bytearray()
        self._scanned = 0
        self._empty_lines = 0
        self._error: MalformedRequest | None = None
        self.trailers = b""
        self.complete = True

    @property
    def buffered(self) -> int:
        """Bytes received and not consumed."""
        return len(self._buffer)

    def feed(self, data: bytes | memoryview) -> None:
        """Add received bytes."""
        self._buffer += data

    def clear(self) -> None:
        """Discard the bytes that were not consumed."""
        self._buffer.clear()
        self._scanned = 0

    def next_head(self) -> RequestHead | None:
        """The head of the next request; None while it is incomplete.

        Raises:
            MalformedRequest: The bytes received so far are not a valid head.
        """
        buffer = self._buffer
        while buffer.startswith(b"\r\n"):
            del buffer[:2]
            self._scanned = 0
            self._empty_lines += 1
            if self._empty_lines > _MAX_EMPTY_LINES:
                raise MalformedRequest("There are too many empty lines before the request.")
        end = buffer.find(b"\r\n\r\n", max(0, self._scanned - 3)) + _TERMINATOR_BYTES
        if not _TERMINATOR_BYTES <= end <= self._max_bytes:
            self._check_partial_head()
            return None
        head = parse_head(bytes(buffer[:end]))
        self._lines = len(head.headers)
        if self._lines > self._max_lines:
            raise HeadTooLarge(f"The head exceeds {self._max_lines} lines.")
        del buffer[:end]
        self._scanned = self._empty_lines = 0
        self._overhead = head.size
        self._chunked = head.length is None
        self._remaining = head.length or 0
        self._in_chunk = self._in_trailers = False
        self.trailers = b""
        self.complete = head.length == 0
        return head

    def partial_headers(self) -> list[Header]:
        """The well-formed header lines of an incomplete or rejected head."""
        *lines, _ = bytes(self._buffer[: self._max_bytes]).split(b"\r\n")
        return [
            (name.lower(), value.strip(b" \t"))
            for name, colon, value in (line.partition(b":") for line in lines[1 : self._max_lines])
            if name and colon and not name.translate(None, _TOKEN_BYTES)
        ]

    def read_body(self) -> bytes:
        """Consume the received bytes of the body; b"" if there are none, or at its end.

        Raises:
            MalformedRequest: The body is malformed; raised after all valid bytes were consumed.
        """
        if self._error is not None:
            raise type(self._error)(*self._error.args)
        if self._chunked:
            return self._read_chunks()
        data = bytes(self._buffer[: self._remaining])
        del self._buffer[: self._remaining]
        self._remaining -= len(data)
        self.complete = not self._remaining
        return data

    def _check_partial_head(self) -> None:
        """Reject an incomplete head that is already invalid."""
        buffer = self._buffer
        end = buffer.find(b"\r\n", 0, self._max_bytes)
        if end >= 0 and not self._scanned > end + 1:
            _parse_request_line(bytes(buffer[:end]))
        if _control.search(buffer, max(0, self._scanned - 1), self._max_bytes):
            raise MalformedRequest("The head has a control character.")
        self._scanned = len(buffer)
        if len(buffer) > self._max_bytes:
            raise HeadTooLarge(f"The head exceeds {self._max_bytes} bytes.")

    def _read_chunks(self) -> bytes:
        parts: list[bytes] = []
        at = 0
        try:
            while not self.complete:
                if self._remaining:
                    part = bytes(self._buffer[at : at + self._remaining])
                    if not part:
                        break
                    at += len(part)
                    self._remaining -= len(part)
                    parts.append(part)
                    continue
                after = self._after_chunk(at)
                if after == at:
                    break
                at = after
        except MalformedRequest as error:
            if not parts:
                raise
            self._error = error.with_traceback(None)  # a traceback would keep the data in memory
        finally:
            del self._buffer[:at]
        return b"".join(parts)

    def _after_chunk(self, at: int) -> int:
        """The position after the framing line at `at`; `at` itself while the line is incomplete."""
        buffer = self._buffer
        if self._in_trailers:
            return self._after_trailer(at)
        if self._in_chunk:
            end = bytes(buffer[at : at + 2])
            if end == b"\r\n":
                self._in_chunk = False
                return at + 2
            if not b"\r\n".startswith(end):
                raise MalformedRequest("A chunk of the body is longer than its size says.")
            return at
        found = _chunk.match(buffer, at)
        if found is None:
            if not _partial_chunk_size.fullmatch(buffer, at):
                raise MalformedRequest("A chunk of the body has no valid size.")
            self._check_overhead(len(buffer) - at)
            return at
        if found[2]:
            self._check_overhead(len(found[2]))
            self._overhead += len(found[2])
        self._remaining = int(found[1], 16)
        self._in_chunk = self._remaining > 0
        self._in_trailers = not self._in_chunk
        return found.end()

    def _after_trailer(self, at: int) -> int:
        buffer = self._buffer
        if buffer.startswith(b"\r\n", at):
            self.complete = True
            return at + 2
        end = buffer.find(b"\n", at) + 1
        self._check_overhead((end or len(buffer)) - at)
        if not end:
            return at
        self._overhead += end - at
        self._lines += 1
        if self._lines > self._max_lines:
            raise HeadTooLarge(f"Head and trailers exceed {self._max_lines} lines.")
        if not _line.fullmatch(buffer, at, end):
            raise MalformedRequest("A trailer is not a header line.")
        self.trailers += bytes(buffer[at:end])
        return end

    def _check_overhead(self, more: int) -> None:
        if self._overhead + more > self._max_bytes:
            raise HeadTooLarge(
                f"Head, trailers and chunk extensions exceed {self._max_bytes} bytes."
            )


def parse_head(data: bytes) -> RequestHead:
    """Parse a complete head.

    Args:
        data: The head with the empty line at its end.

    Raises:
        MalformedRequest: The head is invalid, or its headers contradict each other.
    """
    first, *lines = data[:-4].split(b"\r\n")
    method, target, minor = _parse_request_line(first)
    headers = _parse_lines(lines)
    if len(data) - len(data.translate(None, _CONTROLS)) != 2 * len(lines) + 4:
        raise MalformedRequest("The head has a control character.")
    framing, tokens = _framing(headers)
    length = framing.get(b"content-length", b"0")
    if not length.isdigit() or len(length) > _MAX_DIGITS:
        raise MalformedRequest("Content-Length must be one number.", "Content-Length")
    chunked = b"transfer-encoding" in framing
    if chunked and framing[b"transfer-encoding"].lower() != b"chunked":
        raise MalformedRequest(
            "The only transfer coding that is supported is chunked.", "Transfer-Encoding"
        )
    if chunked and (b"content-length" in framing or not minor):
        raise MalformedRequest(
            "Transfer-Encoding cannot be together with Content-Length, or in HTTP/1.0.",
            "Transfer-Encoding",
        )
    target, authority = _origin_form(method, target)
    host = framing.get(b"host")
    if host is None:
        if minor:
            raise MalformedRequest("The header Host is missing.", "Host")
    elif not _host.fullmatch(host) or authority not in (None, host):
        raise MalformedRequest(
            "The header Host is not valid, or does not match the target.", "Host"
        )
    path, _, query = target.partition(b"?")
    return RequestHead(
        method,
        path,
        query,
        minor,
        headers,
        None if chunked else int(length),
        len(data),
        minor > 0 and b"close" not in tokens,
        minor > 0 and framing.get(b"expect", b"").lower() == b"100-continue",
    )


def _parse_request_line(line: bytes) -> tuple[bytes, bytes, int]:
    found = _request_line.fullmatch(line)
    if found is None:
        raise MalformedRequest("This is not a request of HTTP/1.1 or HTTP/1.0.")
    return found[1], found[2], int(found[3])


def _parse_lines(lines: list[bytes]) -> list[Header]:
    headers = []
    for line in lines:
        name, colon, value = line.partition(b":")
        lower = _USUAL_NAMES.get(name)
        if lower is None:
            if not name or name.translate(None, _TOKEN_BYTES):
                raise MalformedRequest("A header line is not well formed.")
            lower = name.lower()
        if not colon:
            raise MalformedRequest("A header line is not well formed.")
        headers.append((lower, value.strip(b" \t")))
    return headers


def _framing(headers: list[Header]) -> tuple[dict[bytes, bytes], list[bytes]]:
    """The headers that frame the request, each at most once, and the tokens of `Connection`."""
    framing: dict[bytes, bytes] = {}
    tokens: list[bytes] = []
    for name, value in headers:
        if name not in _FRAMING:
            continue
        if name == b"connection":
            tokens += value.lower().replace(b" ", b"").replace(b"\t", b"").split(b",")
        elif name in framing:
            title = name.decode().title()
            raise MalformedRequest(f"The header {title} may occur only once.", title)
        else:
            framing[name] = value
    return framing, tokens


def _origin_form(method: bytes, target: bytes) -> tuple[bytes, bytes | None]:
    """Path with query, and the authority if the target has one (RFC 9112 §3.2)."""
    if method == b"CONNECT":
        raise MalformedRequest("CONNECT is not supported.")
    if target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
        return target, None
    found = _absolute.fullmatch(target)
    if found is None:
        raise MalformedRequest("The target of the request must begin with a slash.")
    rest = found[2]
    return (rest if rest.startswith(b"/") else b"/" + rest), found[1]
