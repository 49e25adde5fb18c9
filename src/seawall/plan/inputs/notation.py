"""Parsing of TOML files and of quantities: `4s..7s`, `5000@20s`, `1200000`."""

import math
import re
import tomllib
from pathlib import Path
from typing import Any

from seawall.errors import ConfigError
from seawall.plan.inputs.distributions import (
    Distribution,
    constant,
    exponential,
    lognormal,
    uniform,
)

__all__ = ["parse_amount", "parse_distribution", "parse_seconds", "parse_spike", "read_document"]

_UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3_600.0, "d": 86_400.0}
_TIME = re.compile(r"([+-]?[\d_.]+(?:e[+-]?\d+)?)\s*(ms|s|min|m|h|d)?", re.IGNORECASE)
_AMOUNT = re.compile(r"([+-]?[\d_.,]+(?:e[+-]?\d+)?)\s*([kmb]?)", re.IGNORECASE)
_SCALES = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9}


def _number(text: str, field: str, written: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ConfigError(f"{field}: {written!r} is not a number") from None
    if not math.isfinite(value):
        raise ConfigError(f"{field}: {written!r} is not a number")
    if value < 0:
        raise ConfigError(f"{field}: {written!r} is negative")
    return value


def parse_seconds(text: str, field: str) -> float:
    """Parse a time into seconds: `20s`, `200ms`, `1.5h`; a bare number is seconds.

    Args:
        text: The time.
        field: Named in errors.

    Raises:
        ConfigError: It is not a time.
    """
    found = _TIME.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f"{field}: {text!r} is not a time such as 200ms, 20s, 5m, 1h")
    return _number(found[1], field, text) * _UNITS[(found[2] or "s").lower()]


def parse_amount(text: str, field: str) -> float:
    """Parse a number: `1200000`, `1_200_000`, `1.2M`, `5k`. Raises ConfigError, naming `field`."""
    found = _AMOUNT.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f"{field}: {text!r} is not a number such as 1200000 or 1.2M")
    return _number(found[1].replace(",", ""), field, text) * _SCALES[found[2].lower()]


def parse_distribution(text: str, field: str) -> Distribution:
    """Parse a time or its distribution. Raises ConfigError, naming `field`.

    `2s`: constant; `4s..7s`: uniform; `exp 2s`: exponential with this mean; `p50 2s p99 9s`:
    lognormal with these percentiles.
    """
    words = text.strip()
    if ".." in words:
        low, _, high = words.partition("..")
        unit = re.search(r"[a-z]+$", high.strip(), re.IGNORECASE)
        if unit and re.fullmatch(r"[\d_.]+", low.strip()):
            low += unit[0]
        return uniform(parse_seconds(low, field), parse_seconds(high, field), field=field)
    if words.startswith("exp "):
        return exponential(parse_seconds(words[4:], field), field=field)
    if found := re.fullmatch(r"p50 (\S+) p99 (\S+)", words):
        return lognormal(
            parse_seconds(found[1], field), parse_seconds(found[2], field), field=field
        )
    return constant(parse_seconds(words, field), field=field)


def parse_spike(text: str, field: str) -> tuple[int, float, float]:
    """Parse a spike: `5000@20s` at once, `5000@20s+10s` within ten seconds from then.

    Returns:
        Requests, time in seconds, and the seconds within which they arrive.

    Raises:
        ConfigError: It is not a spike; `field` is named.
    """
    size, at, when = text.partition("@")
    if not at:
        raise ConfigError(f"{field}: {text!r} is not a spike such as 5000@20s")
    many = parse_amount(size, field)
    if many != int(many):
        raise ConfigError(f"{field}: {size!r} is not a whole number of requests")
    start, plus, within = when.partition("+")
    return int(many), parse_seconds(start, field), parse_seconds(within, field) if plus else 0.0


def read_document(path: Path) -> dict[str, Any]:
    """Read a TOML file. Raises ConfigError, naming the file."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: {error}") from None
