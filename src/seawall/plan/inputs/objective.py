"""What the service has to hold, and where a run misses it."""

import math

from msgspec import Struct

from seawall.errors import ConfigError

__all__ = ["Objective", "excess", "misses"]


class Objective(Struct, frozen=True, kw_only=True):
    """What holds for those who come in the spike; without one, at the busiest ordinary time.

    first_token_p99: seconds until the first token of 99 of 100 that are served. error_share: of
    requests that are refused, time out or fail. latency_p99: seconds until the whole answer; None:
    any. monthly_cost: of what differs between platforms; None: any.
    """

    first_token_p99: float = 5.0
    error_share: float = 0.01
    latency_p99: float | None = None
    monthly_cost: float | None = None

    def __post_init__(self) -> None:
        for name in ("first_token_p99", "latency_p99", "monthly_cost"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"objective.{name}: {value:g} is not a positive number")
        if not 0 <= self.error_share <= 1:
            raise ConfigError(f"objective.error_share: {self.error_share:g} is not from 0 to 1")


def _parts(
    objective: Objective, first_token: float, latency: float, errors: float
) -> list[tuple[str, float, float, str, str]]:
    parts = [
        ("errors", errors, objective.error_share, f"{errors:.1%}", f"{objective.error_share:.1%}"),
        (
            "first token p99", first_token, objective.first_token_p99,
            f"{first_token:.1f} s", f"{objective.first_token_p99:g} s",
        ),
    ]  # fmt: skip
    if objective.latency_p99 is not None:
        most = objective.latency_p99
        parts.append(("latency p99", latency, most, f"{latency:.1f} s", f"{most:g} s"))
    return parts


def misses(
    objective: Objective, *, first_token: float, latency: float, errors: float
) -> tuple[str, ...]:
    """Where it is missed, in words; nothing: it holds. NaN (nobody was served) misses nothing."""
    parts = _parts(objective, first_token, latency, errors)
    return tuple(
        f"{name} {is_} (at most {most_words})"
        for name, value, most, is_, most_words in parts
        if value > most
    )


def excess(objective: Objective, *, first_token: float, latency: float, errors: float) -> float:
    """How far from holding: 0 holds. Errors count most: a refusal is worse than a wait."""
    found = max(0.0, errors - objective.error_share) * 100.0
    for _, value, most, _, _ in _parts(objective, first_token, latency, errors)[1:]:
        if value > most:
            found += math.log(value / most)
    return found
