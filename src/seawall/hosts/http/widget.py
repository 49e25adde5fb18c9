"""`/seawall-chat.js`: the chat widget, for pages of any origin."""

from typing import TYPE_CHECKING

from seawall.hosts.http.exchange import Exchange, Header
from seawall.widget import bundle

if TYPE_CHECKING:
    from seawall.orchestrator import Orchestrator

__all__ = ["show_widget"]

_MAX_AGE_SECONDS = 3_600


async def show_widget(_: "Orchestrator", exchange: Exchange) -> None:
    """`GET /seawall-chat.js`: a script without secrets; any page may load and verify it."""
    made = bundle()
    tag = f'"{made.integrity}"'.encode()
    headers: list[Header] = [
        (b"etag", tag),
        (b"cache-control", b"public, max-age=%d" % _MAX_AGE_SECONDS),
        (b"vary", b"accept-encoding"),
        (b"access-control-allow-origin", b"*"),  # without it `integrity` cannot be checked
        (b"cross-origin-resource-policy", b"cross-origin"),
        (b"x-content-type-options", b"nosniff"),
    ]
    if tag in exchange.headers.get(b"if-none-match", b""):
        await exchange.start(304, headers, readable=False)
        await exchange.end()
        return
    body = made.text
    if b"gzip" in exchange.headers.get(b"accept-encoding", b""):
        body = made.compressed
        headers.append((b"content-encoding", b"gzip"))
    headers.append((b"content-type", b"text/javascript; charset=utf-8"))
    headers.append((b"content-length", b"%d" % len(body)))
    await exchange.start(200, headers, readable=False)
    await exchange.end(body)
