"""The chat widget `seawall-chat.js`: its sources, and the one file that pages load.

The sources are ES modules, which the console uses as they are. A script tag on a page
is one file and no module: the modules in their order, without their imports and exports, in a
function of their own.
"""

import base64
import functools
import gzip
import hashlib
import re
from importlib.resources import files

from msgspec import Struct

__all__ = ["MODULES", "Bundle", "bundle", "module_text"]

MODULES = (
    "events",
    "client",
    "markdown",
    "form",
    "labels",
    "cards",
    "style",
    "turn_view",
    "layout",
    "element",
    "start",
)
"""In the order of the bundle: each uses what is before it."""

_IMPORT = re.compile(r'^import .*? from "\./\w+\.js";\n', re.DOTALL | re.MULTILINE)
_EXPORT = re.compile(r"^export ", re.MULTILINE)
_NOTICE = (
    "// Seawall chat, Apache-2.0. Sources: src/seawall/widget. Documentation: docs/widget.md.\n"
)


class Bundle(Struct, frozen=True):
    """The file that pages load.

    Attributes:
        text: Its content.
        compressed: The same by gzip.
        integrity: For the attribute `integrity` of a script tag.
    """

    text: bytes
    compressed: bytes
    integrity: str


def module_text(name: str) -> str:
    """The source of a module.

    Args:
        name: One of `MODULES`.
    """
    return (files("seawall.widget") / f"{name}.js").read_text(encoding="utf-8")


@functools.cache
def bundle() -> Bundle:
    """The bundle; the same bytes whenever it is made from the same sources."""
    parts = (_EXPORT.sub("", _IMPORT.sub("", module_text(name))) for name in MODULES)
    body = "\n".join(parts)
    text = f'{_NOTICE}(() => {{\n"use strict";\n{body}}})();\n'.encode()
    digest = base64.b64encode(hashlib.sha384(text).digest()).decode()
    return Bundle(text, gzip.compress(text, mtime=0), f"sha384-{digest}")
