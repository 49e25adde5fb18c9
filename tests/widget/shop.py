"""A shop: a site of another origin whose page embeds the widget, and gives it a token."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

__all__ = ["PAGE", "Shop", "open_shop"]

PAGE = """<!doctype html>
<html lang="en"><head><title>Shop</title><meta name="viewport" content="width=device-width">
<style>STYLE</style></head>
<body><main><h1>Shop</h1><p>Things to buy.</p></main>
BODY
<script src="SERVER/seawall-chat.js" data-title-text="Shop help" data-greeting="Hello!"
 OPTIONS></script>
</body></html>"""


class Shop:
    """What the site serves; tests change it.

    Attributes:
        url: Of the site.
        who: Whose token the page gets.
        tokens: How many it has got.
        page: The page.
    """

    def __init__(self) -> None:
        self.url = ""
        self.who = "ann"
        self.tokens = 0
        self.seconds = 300
        self.page = PAGE

    def embed(self, server: str, options: str = "", style: str = "", body: str = "") -> None:
        """Embed the widget of a server."""
        token = 'data-token-url="/token"'
        replaced = {"SERVER": server, "OPTIONS": f"{token} {options}", "STYLE": style, "BODY": body}
        self.page = PAGE
        for name, value in replaced.items():
            self.page = self.page.replace(name, value)


@contextmanager
def open_shop() -> Iterator[Shop]:
    """Serve a shop until the block ends."""
    shop = Shop()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            target = urlsplit(self.path)
            if target.path == "/token":
                shop.tokens += 1
                who = parse_qs(target.query).get("who", [shop.who])[0]
                body, kind = (
                    f'{{"token": "sw_{who}", "expires_in": {shop.seconds}}}',
                    "application/json",
                )
            else:
                body, kind = shop.page, "text/html; charset=utf-8"
            data = body.encode()
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    shop.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield shop
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
