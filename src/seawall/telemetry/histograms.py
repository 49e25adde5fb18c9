"""OpenTelemetry histograms: explicit buckets, cumulative, by attributes.

Names, units and bounds of `gen_ai.*`:
https://github.com/open-telemetry/semantic-conventions-genai, docs/gen-ai/gen-ai-metrics.md.
"""

import time
from bisect import bisect_left

from msgspec import Struct, field

__all__ = ["Distribution", "Distributions", "HistogramPoint"]

_MAX_POINTS = 200
_OTHER = (("otel.metric.overflow", True),)
_SECONDS = (
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
)  # fmt: skip
_TOKENS = tuple(4.0**exponent for exponent in range(14))

Key = tuple[tuple[str, str | bool], ...]


class HistogramPoint(Struct):
    """The values under one set of attributes; one bucket more than there are bounds."""

    buckets: list[int]
    total: float = 0.0


class Distribution(Struct):
    """A histogram. `bounds` are upper and inclusive; `began` is in nanoseconds since 1970."""

    name: str
    description: str
    unit: str
    bounds: tuple[float, ...]
    began: int = field(default_factory=time.time_ns)
    points: dict[Key, HistogramPoint] = field(default_factory=dict)

    def record(self, value: float, key: Key) -> None:
        """Count a value. Beyond 200 sets of attributes, all others are counted as one."""
        point = self.points.get(key)
        if point is None:
            if len(self.points) >= _MAX_POINTS:
                key = _OTHER
            empty = HistogramPoint([0] * (len(self.bounds) + 1))
            point = self.points.setdefault(key, empty)
        point.buckets[bisect_left(self.bounds, value)] += 1
        point.total += value


class Distributions:
    """The histograms of one process."""

    def __init__(self) -> None:
        self.model_call_seconds = Distribution(
            "gen_ai.client.operation.duration", "GenAI operation duration.", "s", _SECONDS
        )
        self.model_first_chunk_seconds = Distribution(
            "gen_ai.client.operation.time_to_first_chunk",
            "Time to receive the first chunk.",
            "s",
            _SECONDS,
        )
        self.tokens = Distribution(
            "gen_ai.client.token.usage",
            "Number of input and output tokens used.",
            "{token}",
            _TOKENS,
        )
        self.turn_seconds = Distribution(
            "seawall.turn.duration", "Time from a turn's arrival to its end.", "s", _SECONDS
        )
        self.first_text_seconds = Distribution(
            "seawall.turn.time_to_first_text",
            "Time from a turn's arrival to its first text.",
            "s",
            _SECONDS,
        )

    def all(self) -> tuple[Distribution, ...]:
        """The histograms that have values."""
        every = (
            self.model_call_seconds,
            self.model_first_chunk_seconds,
            self.tokens,
            self.turn_seconds,
            self.first_text_seconds,
        )
        return tuple(each for each in every if each.points)
