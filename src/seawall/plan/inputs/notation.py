"""Parsing of TOML files and of quantities with units: `4s..7s`, `5000@20s`, `1.2M`, `1%`, `$500`.

Flags and files use the same functions: what one accepts the other does, with the same meaning.
"""

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

__all__ = [
    "in_unit",
    "parse_amount",
    "parse_distribution",
    "parse_money",
    "parse_seconds",
    "parse_share",
    "parse_size",
    "parse_spike",
    "read_document",
]

_UNITS = {
    **dict.fromkeys(("us", "µs", "usec"), 1e-6),
    **dict.fromkeys(("ms", "msec", "millisecond", "milliseconds"), 1e-3),
    **dict.fromkeys(("", "s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hour", "hours"), 3_600.0),
    **dict.fromkeys(("d", "day", "days"), 86_400.0),
}
_TIME = re.compile(r"([+-]?[\d_.]+(?:e[+-]?\d+)?)\s*([a-zµ]*)", re.IGNORECASE)
_PARTS = re.compile(r"(?:\d+(?:\.\d+)?\s*[a-zµ]+\s*){2,}", re.IGNORECASE)  # 1m30s
_PART = re.compile(r"([\d.]+)\s*([a-zµ]+)", re.IGNORECASE)
_AMOUNT = re.compile(r"([+-]?(?:\d{1,3}(?:,\d{3})+(?:\.\d*)?|[\d_.]+(?:e[+-]?\d+)?))\s*([kmb]?)",
                     re.IGNORECASE)  # fmt: skip
_SCALES = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9}
# As clouds count memory: 1 GB is 1,024 MB. In KB.
_SIZES = {
    **dict.fromkeys(("b", "byte", "bytes"), 1 / 1_024),
    **dict.fromkeys(("k", "kb", "kib", "ki"), 1.0),
    **dict.fromkeys(("m", "mb", "mib", "mi"), 1_024.0),
    **dict.fromkeys(("g", "gb", "gib", "gi"), 1_048_576.0),
}
_SIGNS = {"$": "USD", "€": "EUR", "£": "GBP", "¥": "JPY"}
_MONEY = re.compile(
    r"([$€£¥]|[A-Z]{3})?\s*([-+]?[\d.,_]+[kmb]?)\s*([A-Z]{3}|[$€£¥])?", re.IGNORECASE
)


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
    """Parse a time into seconds: `20s`, `200ms`, `1.5h`, `1m30s`; a bare number is seconds.

    Args:
        text: The time.
        field: Named in errors.

    Raises:
        ConfigError: It is not a time.
    """
    words = text.strip()
    if _PARTS.fullmatch(words):
        return sum(parse_seconds(each[0], field) for each in _PART.finditer(words))
    found = _TIME.fullmatch(words)
    if found is None or found[2].lower() not in _UNITS:
        raise ConfigError(f"{field}: {text!r} is not a time such as 200ms, 20s, 5m, 1h")
    return _number(found[1], field, text) * _UNITS[found[2].lower()]


def parse_amount(text: str, field: str) -> float:
    """Parse a number: `1200000`, `1_200_000`, `1,200,000`, `1.2M`, `5k`.

    Raises:
        ConfigError: It is not a number, or its comma may be a decimal one; `field` is named.
    """
    found = _AMOUNT.fullmatch(text.strip())
    if found is None:
        why = "; write decimals with a point" if "," in text else ""
        raise ConfigError(f"{field}: {text!r} is not a number such as 1200000 or 1.2M{why}")
    return _number(found[1].replace(",", ""), field, text) * _SCALES[found[2].lower()]


def parse_share(text: str, field: str, *, ambiguous: float = 1.0) -> float:
    """Parse a share of 1: `1%`, `0.01`; a number from 1 on is per cent, so that 28 is 28 %.

    Args:
        text: The share.
        field: Named in errors.
        ambiguous: Bare numbers from this to 1 are rejected: 0.5 may be meant as 0.5 %.

    Raises:
        ConfigError: It is not a share from 0 to 100 per cent, or ambiguous.
    """
    words = text.strip()
    try:
        value = float(words.removesuffix("%"))
    except ValueError:
        raise ConfigError(f"{field}: {text!r} is not a share such as 1%") from None
    percent = words.endswith("%") or value >= 1
    if not percent and ambiguous <= value < 1:
        raise ConfigError(f"{field}: {text!r} is ambiguous; write {value:g}% or {100 * value:g}%")
    share = value / 100.0 if percent else value
    if not 0 <= share <= 1:
        raise ConfigError(f"{field}: {text!r} is not from 0 to 100 per cent")
    return share


def parse_money(text: str, field: str, currency: str) -> float:
    """Parse an amount of money: `500`, `$500`, `500 USD`, `1.5k`.

    Args:
        text: The amount.
        field: Named in errors.
        currency: Of the prices.

    Raises:
        ConfigError: It is not an amount, or in another currency.
    """
    found = _MONEY.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f"{field}: {text!r} is not an amount such as 500, $500 or 1.5k")
    codes = [each.strip().upper() for each in (found[1], found[3]) if each]
    if any(_SIGNS.get(code, code) != currency for code in codes):
        raise ConfigError(f"{field}: {text!r} is not in {currency}, as the prices are")
    return parse_amount(found[2], field)


def parse_size(text: str, field: str, unit: str) -> float:
    """Parse a size: `512MB`, `0.5 GB`, `40KB`; 1 GB is 1,024 MB.

    Args:
        text: The size.
        field: Named in errors.
        unit: Of the result and of a bare number: `KB` or `MB`.

    Raises:
        ConfigError: It is not a size.
    """
    found = _TIME.fullmatch(text.strip())
    word = unit.lower() if found is not None and not found[2] else (found or ["", "", ""])[2]
    if found is None or word.lower() not in _SIZES:
        raise ConfigError(f"{field}: {text!r} is not a size such as 512MB, 0.5GB, 40KB")
    return _number(found[1], field, text) * _SIZES[word.lower()] / _SIZES[unit.lower()]


def in_unit(text: str, unit: str, field: str, currency: str = "USD") -> float:
    """Parse a text into a number in the unit of a field.

    Args:
        text: With its unit, or a bare number.
        unit: `s`, `ms`, `min`, `KB`, `MB`, `share`, `money`; else a plain amount, or per cent.
        field: Named in errors.
        currency: Of `money`.

    Raises:
        ConfigError: It is not such a quantity.
    """
    match unit:
        case "s" | "ms" | "min":
            bare = re.fullmatch(r"[\d_.]+", text.strip())
            return parse_seconds(f"{text}{unit}" if bare else text, field) / _UNITS[unit]
        case "KB" | "MB":
            return parse_size(text, field, unit)
        case "share":
            return parse_share(text, field, ambiguous=0.1)
        case "money":
            return parse_money(text, field, currency)
        case _:
            percent = text.rstrip().endswith("%")
            return parse_share(text, field) if percent else parse_amount(text, field)


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
