"""Parses the TOML files of a package, so that its cold starts need not."""

import tomllib
from pathlib import Path

import msgspec

from seawall.config import PARSED_SUFFIX

__all__ = ["parse_ahead"]


def parse_ahead(path: Path) -> Path | None:
    """Write a TOML file's text and document as JSON beside it; see `config.parsed_ahead`.

    Args:
        path: The file.

    Returns:
        The file that was written; None if it is not TOML, or has something that JSON has not:
        dates, and numbers that are not finite.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        document = tomllib.loads(text)
        written = msgspec.json.encode((text, document))
        same = msgspec.json.decode(written)[1] == document
    except (ValueError, RecursionError):
        return None
    if not same:
        return None
    out = Path(f"{path}{PARSED_SUFFIX}")
    out.write_bytes(written)
    return out
