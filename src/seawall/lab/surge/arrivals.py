"""When the customers of an open loop are due: a pure function of shapes and seed."""

import math
import random
from collections.abc import Iterator

from seawall.errors import ConfigError
from seawall.lab.surge.scenario import Crowd, Instant, Poisson, Ramp, Replay, Shape

__all__ = ["arrivals"]


def arrivals(crowds: list[Crowd], seed: int) -> list[tuple[float, int]]:
    """In order: when somebody is due, in seconds, and which crowd is his.

    Raises:
        ConfigError: nobody comes at all.
    """
    chance = random.Random(seed)  # noqa: S311 - a simulation, not a secret
    found = [
        (due, index)
        for index, crowd in enumerate(crowds)
        for shape in crowd.shapes
        for due in _times(shape, chance)
    ]
    if not found:
        raise ConfigError("the crowd is empty: nobody comes; give a higher --rate, or longer")
    return sorted(found)


def _times(shape: Shape, chance: random.Random) -> Iterator[float]:
    match shape:
        case Instant():
            yield from [shape.at] * shape.turns
        case Poisson():
            yield from _ramp(shape.rate, shape.rate, shape.seconds, shape.start, chance)
        case Ramp():
            yield from _ramp(shape.low, shape.high, shape.seconds, shape.start, chance)
        case Replay():
            yield from shape.times


def _ramp(
    low: float, high: float, seconds: float, start: float, chance: random.Random
) -> Iterator[float]:
    """A Poisson process with a linear rate.

    By inversion: the arrivals of a process of rate 1, put where the integral of the rate,
    low*t + (high-low)*t*t/(2*seconds), reaches them. Source: Çinlar, Introduction to Stochastic
    Processes, 1975, section 4.7.
    """
    growth = (high - low) / seconds / 2.0 if seconds else 0.0
    expected = (low + high) / 2.0 * seconds
    reached = chance.expovariate(1.0)
    while reached < expected:
        # The stable form of the root, which also holds where the rate does not grow.
        yield start + 2.0 * reached / (low + math.sqrt(low * low + 4.0 * growth * reached))
        reached += chance.expovariate(1.0)
