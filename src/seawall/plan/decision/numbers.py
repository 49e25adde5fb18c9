"""Numbers as text: one way to write each kind, on the terminal, in sentences and on the page.

`output/assets/charts.js` has the same rules; `tests/plan/test_numbers.py` compares the two.
"""

import math
from decimal import ROUND_HALF_UP, Decimal

__all__ = ["amount", "by_times", "money", "price", "seconds", "share", "within"]


def amount(value: float) -> str:
    """`1,200,000`, `334`, `0.5`, `3.36`: whole from 100, else three significant digits."""
    size = abs(value)
    if size >= 100 or size == 0:
        return _fixed(value, 0)
    text = _fixed(value, 2 - math.floor(math.log10(size)))
    return text.rstrip("0").rstrip(".") if "." in text else text


def by_times(ratio: float) -> str:
    """How many times as much: `1.28`, `2.18`, `52,000`; what is a little more than once says so."""
    if 1.0 < ratio < 1.005:
        return "under 1.01"
    return amount(ratio)


def money(value: float, currency: str = "USD") -> str:
    """`$319`, `$0.12`, `EUR 319`: whole from 10."""
    sign = "$" if currency == "USD" else f"{currency} "
    minus = "-" if value < 0 else ""
    size = abs(value)
    if 0 < size < 0.005:
        return f"under {sign}0.01"
    return f"{minus}{sign}{_fixed(size, 0 if size >= 10 else 2)}"


def seconds(value: float | None) -> str:
    """`150 ms`, `3.36 s`, `20 min`; `-` if there is none."""
    if value is None or math.isnan(value):
        return "-"
    scale, unit = _unit(value)
    return f"{amount(value / scale)} {unit}"


def share(value: float | None) -> str:
    """`0.3 %`, `71.7 %`; `-` if there is none. Only all is `100 %`, only none is `0 %`."""
    if value is None or math.isnan(value):
        return "-"
    percent = 100.0 * value
    if 0.0 < percent < 0.01:
        return "under 0.01 %"
    if 99.95 <= percent < 100.0:
        return "over 99.9 %"
    return f"{amount(percent)} %"


def price(value: float) -> str:
    """`0.0000133334`: all its digits, without an exponent."""
    return f"{value:.10f}".rstrip("0").rstrip(".")


def within(value: float | None, half: float | None, kind: str) -> str:
    """A value with half its interval, in the same unit and to the same digit: `3.36 ± 0.06 s`.

    Args:
        value: None: there is none.
        half: Half the interval of 95 % confidence. None: unknown.
        kind: `seconds`, `share` or `count`.
    """
    alone = {"seconds": seconds, "share": share}.get(kind)
    if value is None or math.isnan(value) or not half:
        return "-" if value is None else (alone or amount)(value)
    if kind == "count":
        text, unit, scale = _fixed(value, 0), "", 1.0
    else:
        scale, unit = _unit(value) if kind == "seconds" else (0.01, "%")
        text = amount(value / scale)
    digits = len(text.partition(".")[2]) if "." in text else 0
    if digits == 0 and kind != "count" and abs(value / scale) < 100:
        digits = 1 if abs(value / scale) >= 10 else 2
    width = _fixed(half / scale, digits)
    if not float(width.replace(",", "")):
        return (alone or amount)(value)
    return f"{_fixed(value / scale, digits)} ± {width} {unit}".rstrip()


def _unit(value: float) -> tuple[float, str]:
    size = abs(value)
    if size == 0 or 0.9995 <= size < 600:
        return 1.0, "s"
    return (1e-3, "ms") if size < 1 else (60.0, "min")


def _fixed(value: float, digits: int) -> str:
    """A number with so many decimals: its shortest digits, halves away from zero, as `Intl`."""
    if not abs(value) < 1e15:  # no digit is right beyond
        return f"{value:,.0f}"
    exact = Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_UP)
    return f"{exact + 0:,.{digits}f}"
