"""Times as they stand in files: dates in ISO 8601, or seconds since whenever."""

import math
from datetime import UTC, datetime

__all__ = ["moment"]


def moment(text: str) -> float | None:
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
    whole, dot, rest = text.strip().partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    # Seven digits, as .NET writes them, are more than Python reads.
    short = f"{whole}{dot}{rest[: min(digits, 6)]}{rest[digits:]}" if dot else whole
    try:
        found = datetime.fromisoformat(short)
    except ValueError:
        return None
    aware = found if found.tzinfo else found.replace(tzinfo=UTC)
    return aware.timestamp() + (float(f"0.{rest[:digits]}") % 1e-6 if digits > 6 else 0.0)
