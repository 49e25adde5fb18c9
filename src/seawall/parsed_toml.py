"""TOML that was parsed ahead, as JSON in a file beside it.

A function's package has one for each of its TOML files: reading it takes a cold start a fraction
of the time of parsing, and the parser is not imported. It holds the text that it was made of, so
that it counts for no other; whatever is wrong with it, the text is parsed.
"""

from pathlib import Path
from typing import Any

import msgspec

__all__ = ["parse_ahead", "read_ahead"]

_SUFFIX = ".parsed.json"


def read_ahead(path: Path, text: str) -> dict[str, Any] | None:
    """The document of a file that was parsed ahead; None if it was not, or was another text.

    Args:
        path: The TOML file.
        text: Its content.
    """
    try:
        written, document = msgspec.json.decode(Path(f"{path}{_SUFFIX}").read_bytes())
    except (OSError, ValueError, TypeError):
        return None
    return document if written == text and isinstance(document, dict) else None


def parse_ahead(path: Path) -> Path | None:
    """Parse a TOML file for `read_ahead`.

    Args:
        path: The file.

    Returns:
        The file that was written; None if it is not TOML, or has something that JSON has not.
    """
    import tomllib  # noqa: PLC0415 - readers do not need it

    try:
        text = path.read_text(encoding="utf-8-sig")
        document = tomllib.loads(text)
        written = msgspec.json.encode((text, document))
        same = msgspec.json.decode(written)[1] == document
    except (ValueError, RecursionError):
        return None
    if not same:  # dates, and numbers that are not finite or too large
        return None
    out = Path(f"{path}{_SUFFIX}")
    out.write_bytes(written)
    return out
