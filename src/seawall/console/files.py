"""The files of the page, with their types, and the policy that browsers apply to them."""

import hashlib
from importlib.resources import files
from importlib.resources.abc import Traversable

from msgspec import Struct

__all__ = ["POLICY", "SECURITY_HEADERS", "Asset", "load_assets"]

_TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".svg": b"image/svg+xml",
    ".txt": b"text/plain; charset=utf-8",
}
POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    b"connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'self'; "
    b"frame-ancestors 'none'"
)
"""Scripts and styles come from this server's files only, and no page may embed this one."""
SECURITY_HEADERS = [
    (b"content-security-policy", POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


class Asset(Struct, frozen=True):
    """A file of the page.

    Attributes:
        body: Its content.
        content_type: Of the response.
        tag: Its entity tag.
    """

    body: bytes
    content_type: bytes
    tag: bytes


def load_assets() -> dict[str, Asset]:
    """All files of the page, by their path below `assets`; `widget/` has those of the widget."""
    found: dict[str, Asset] = {}
    _collect(files("seawall.console") / "assets", "", found)
    _collect(files("seawall.widget"), "widget/", found)  # the page uses its modules
    return found


def _collect(folder: Traversable, before: str, found: dict[str, Asset]) -> None:
    for entry in folder.iterdir():
        path = before + entry.name
        if entry.is_dir():
            _collect(entry, path + "/", found)
            continue
        kind = _TYPES.get(entry.name[entry.name.rfind(".") :])
        if kind is not None:
            body = entry.read_bytes()
            tag = b'"%b"' % hashlib.sha256(body).hexdigest()[:20].encode()
            found[path] = Asset(body, kind, tag)
