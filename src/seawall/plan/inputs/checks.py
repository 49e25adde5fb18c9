"""Refusing amounts that make no sense, naming the field."""

import math

from seawall.errors import ConfigError

__all__ = ["check_amounts"]


def check_amounts(where: str, **numbers: float) -> None:
    """Each must be a number that is not negative; `where.name` is what the error names."""
    for name, number in numbers.items():
        if not math.isfinite(number):
            raise ConfigError(f"{where}.{name}: {number} is not a number")
        if number < 0:
            raise ConfigError(f"{where}.{name}: {number:g} is negative")
