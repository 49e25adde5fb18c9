"""HTTP services of the harness, whose clients are killed at any time."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["Handler", "Server"]


class Handler(BaseHTTPRequestHandler):
    """A handler that logs nothing, and does not mind a client that is gone."""

    protocol_version = "HTTP/1.1"

    def send(self, status: int, kind: str, data: bytes) -> None:
        """Answer with so much data of that media type."""
        try:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except OSError:  # the server that asked was killed
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class Server(ThreadingHTTPServer):
    """A server of such a handler."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """Killed clients are no news."""
