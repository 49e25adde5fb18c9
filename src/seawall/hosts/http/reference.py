"""`/docs`: the reference of the API, as Swagger UI shows `/openapi.json`.

Where there is a console there is this page, without a login, as what it shows is public. Its files
are not part of Lambda packages.
"""

import asyncio
import functools
import gzip
import hashlib
from importlib.resources import files

from seawall.console.files import SECURITY_HEADERS
from seawall.errors import NotFound
from seawall.hosts.http.exchange import Exchange, Header

__all__ = ["show_reference"]

_FILES = {
    "/docs": ("index.html", b"text/html; charset=utf-8"),
    "/docs/start.js": ("start.js", b"text/javascript; charset=utf-8"),
    "/docs/start.css": ("start.css", b"text/css; charset=utf-8"),
    "/docs/swagger-ui.js": ("swagger-ui.js.gz", b"text/javascript; charset=utf-8"),
    "/docs/swagger-ui.css": ("swagger-ui.css.gz", b"text/css; charset=utf-8"),
}


async def show_reference(exchange: Exchange, path: str) -> None:
    """`GET /docs`, and the files of the page.

    Args:
        exchange: The request.
        path: `/docs`, or one below.

    Raises:
        NotFound: There is no such file, or this installation does not have the page.
    """
    exchange.cors = None
    if path == "/docs/":
        location = (exchange.scope.get("root_path") or "") + "/docs"
        await exchange.start(307, [(b"location", location.encode()), (b"content-length", b"0")])
        await exchange.end()
        return
    if path not in _FILES:
        raise NotFound("The reference has no such file.")
    name, content_type = _FILES[path]
    try:
        body, tag = await asyncio.to_thread(_read, name)
    except FileNotFoundError as error:
        raise NotFound("This installation does not have the reference of the API.") from error
    headers: list[Header] = [(b"etag", tag), (b"cache-control", b"no-cache"), *SECURITY_HEADERS]
    if exchange.headers.get(b"if-none-match") == tag:
        await exchange.start(304, headers)
        await exchange.end()
        return
    if name.endswith(".gz"):
        headers.append((b"vary", b"accept-encoding"))
        if b"gzip" in exchange.headers.get(b"accept-encoding", b""):
            headers.append((b"content-encoding", b"gzip"))
        else:
            body = await asyncio.to_thread(_decompressed, name)
    await exchange.answer(body, headers=headers, content_type=content_type)


@functools.cache
def _read(name: str) -> tuple[bytes, bytes]:
    """A file of the page, and its entity tag."""
    body = (files("seawall.console") / "api_reference" / name).read_bytes()
    return body, b'"%b"' % hashlib.sha256(body).hexdigest()[:20].encode()


@functools.cache
def _decompressed(name: str) -> bytes:
    """The same file for clients that take no gzip; kept, as anyone may ask for it."""
    return gzip.decompress(_read(name)[0])
