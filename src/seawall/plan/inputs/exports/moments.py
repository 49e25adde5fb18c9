"""Times as they stand in files: dates in ISO 8601 or of access logs, or numbers since whenever."""

import math
import re
from datetime import UTC, datetime

__all__ = ["is_number", "parse_time"]

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
# As nginx, Apache and HAProxy write it: 10/Oct/2000:13:55:36.123 -0700.
_LOGGED = re.compile(
    r"\[?(\d\d)/([A-Za-z]{3})/(\d{4}):(\d\d:\d\d:\d\d(?:\.\d+)?)(?: ([+-]\d{4}))?\]?"
)
_SLASHES = re.compile(r"(\d{4})/(\d\d)/(\d\d)(?=[ T])")


def is_number(text: str) -> bool:
    """It is written as a number, not as a date."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def parse_time(text: str) -> float | None:
    """Seconds; of a date since 1970, which is in UTC where it does not say. None: is no time."""
    if text.endswith("Z"):  # the most usual, and by far the quickest
        try:
            return datetime.fromisoformat(text).timestamp()
        except ValueError:
            pass  # seven digits: below
    try:
        value = float(text)
    except ValueError:
        pass
    else:
        return value if math.isfinite(value) else None
    text = _SLASHES.sub(r"\1-\2-\3", text.strip())
    if (logged := _LOGGED.fullmatch(text)) and logged[2].lower() in _MONTHS:
        month = _MONTHS.index(logged[2].lower()) + 1
        text = f"{logged[3]}-{month:02}-{logged[1]}T{logged[4]}{logged[5] or ''}"
    whole, dot, rest = text.partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    # Seven digits, as .NET writes them, are more than Python reads.
    short = f"{whole}{dot}{rest[: min(digits, 6)]}{rest[digits:]}" if dot else whole
    try:
        found = datetime.fromisoformat(short)
    except ValueError:
        return None
    aware = found if found.tzinfo else found.replace(tzinfo=UTC)
    return aware.timestamp() + (float(f"0.{rest[:digits]}") % 1e-6 if digits > 6 else 0.0)
