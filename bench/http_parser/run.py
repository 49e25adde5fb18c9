"""Processor time that reading one request takes: httptools, ours, h11. See README.md."""

import argparse
import json
import time
from collections.abc import Callable

import h11
import httptools

from seawall.transport.http_request import RequestReader

_BODY = b'{"text": "Where is my order?" }'
REQUEST = (
    b"POST /v1/turns HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: OpenAI/Python 2.9\r\n"
    b"Accept: application/json\r\nAccept-Encoding: gzip\r\nContent-Type: application/json\r\n"
    b"Authorization: Bearer %b\r\nIdempotency-Key: 01a20fedb796b8343ad07742da7b6e1d\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (b"e" * 600, len(_BODY), _BODY)
)


def read_with_ours(count: int) -> None:
    """One reader for all requests of a connection."""
    reader = RequestReader(32_768, 100)
    for _ in range(count):
        reader.feed(REQUEST)
        if reader.next_head() is None or reader.read_body() != _BODY or not reader.complete:
            raise RuntimeError("the request was not read whole")


class _Collected:
    """What an application needs of the callbacks of httptools."""

    def on_message_begin(self) -> None:
        """A request begins."""
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""

    def on_url(self, url: bytes) -> None:
        """Its target."""
        self.url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header line."""
        self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        """A part of its body."""
        self.body += body


def read_with_httptools(count: int) -> None:
    """One parser for all requests of a connection."""
    collected = _Collected()
    parser = httptools.HttpRequestParser(collected)
    for _ in range(count):
        parser.feed_data(REQUEST)
        httptools.parse_url(collected.url)
        if collected.body != _BODY:
            raise RuntimeError("the request was not read whole")


def read_with_h11(count: int) -> None:
    """A connection object for each request: to reuse one, an answer must go through it as well."""
    for _ in range(count):
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(REQUEST)
        while not isinstance(connection.next_event(), h11.EndOfMessage):
            pass


def main() -> None:
    """Print the microseconds of each, the least of several rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer requests and rounds")
    quick = parser.parse_args().quick
    count, rounds = (500, 3) if quick else (3_000, 7)
    readers: dict[str, Callable[[int], None]] = {
        "httptools": read_with_httptools,
        "seawall": read_with_ours,
        "h11": read_with_h11,
    }
    least = dict.fromkeys(readers, float("inf"))
    for _ in range(rounds):
        for name, read in readers.items():
            began = time.process_time()
            read(count)
            least[name] = min(least[name], (time.process_time() - began) / count * 1e6)
    for name, figure in least.items():
        print(f"{name:<10} {figure:6.1f} µs a request")
    print(json.dumps({f"{name}_us": round(figure, 1) for name, figure in least.items()}))


if __name__ == "__main__":
    main()
