"""Arrivals of requests: a rate with its shape, spikes, campaigns, growth, a recorded trace."""

import math

import numpy as np
from msgspec import Struct, structs
from numpy.typing import NDArray

from seawall.errors import ConfigError
from seawall.plan.inputs.distributions import check_amounts
from seawall.plan.inputs.exports.trace import check_times, scaled_times

__all__ = [
    "Arrivals",
    "Campaign",
    "Spike",
    "check_arrivals",
    "expected_requests",
    "rate_profile",
    "with_daily",
]

DAY = 86_400.0


class Spike(Struct, frozen=True):
    """`size` requests at `at` seconds: at once, or spread evenly over `within` seconds."""

    size: int
    at: float
    within: float = 0.0


class Campaign(Struct, frozen=True):
    """From `at` on, for `seconds`, the rate is `factor` times as high."""

    at: float
    seconds: float
    factor: float


class Arrivals(Struct, frozen=True, kw_only=True):
    """Arrivals from 0 to `horizon` seconds.

    Attributes:
        horizon: Seconds; a day by default.
        rate: Requests a second, on average over a day; a Poisson process.
        daily_shape: 24 relative weights, by hour; empty: flat.
        weekly_shape: Seven relative weights, by day; empty: flat.
        growth: Growth of the rate in 30 days; 0.1 is ten per cent.
        spikes: Many requests at once, in addition to the rate.
        campaigns: Times of a higher rate.
        trace: Recorded times of arrival in order, in seconds; in addition to the rate.
    """

    horizon: float = DAY
    rate: float = 0.0
    daily_shape: tuple[float, ...] = ()
    weekly_shape: tuple[float, ...] = ()
    growth: float = 0.0
    spikes: tuple[Spike, ...] = ()
    campaigns: tuple[Campaign, ...] = ()
    trace: NDArray[np.float64] | None = None


def with_daily(arrivals: Arrivals, daily: float, field: str) -> Arrivals:
    """The arrivals with this number of requests a day.

    A trace keeps its shape and its length: its requests are thinned out or multiplied. Without one
    the number is the rate of the Poisson process.

    Args:
        arrivals: With a trace, or without.
        daily: Requests a day.
        field: Named in errors.

    Raises:
        ConfigError: Nothing is left of the trace, or it has too many requests.
    """
    if arrivals.trace is None:
        return structs.replace(arrivals, rate=daily / DAY)
    times = scaled_times(arrivals.trace, arrivals.horizon, daily, field)
    return structs.replace(arrivals, trace=times)


def rate_profile(arrivals: Arrivals) -> tuple[NDArray[np.float64], float]:
    """The rate of the Poisson process in equal bins, and the seconds of a bin."""
    changing = arrivals.daily_shape or arrivals.weekly_shape or arrivals.growth
    edges = [edge for c in arrivals.campaigns for edge in (c.at, c.at + c.seconds)]
    edges += [edge for s in arrivals.spikes if s.within for edge in (s.at, s.at + s.within)]
    if not changing and not edges:
        return np.array([arrivals.rate]), arrivals.horizon
    width = 60.0 if not edges else 1.0
    while arrivals.horizon / width > 1_000_000:
        width *= 10.0
    bins = math.ceil(arrivals.horizon / width)
    middle = (np.arange(bins) + 0.5) * width
    rates = np.full(bins, arrivals.rate)
    if arrivals.daily_shape:
        weights = np.asarray(arrivals.daily_shape, dtype=np.float64)
        rates *= weights[(middle // 3_600).astype(int) % 24] / weights.mean()
    if arrivals.weekly_shape:
        weights = np.asarray(arrivals.weekly_shape, dtype=np.float64)
        rates *= weights[(middle // DAY).astype(int) % 7] / weights.mean()
    if arrivals.growth:
        rates *= (1.0 + arrivals.growth) ** (middle / (30 * DAY))
    for campaign in arrivals.campaigns:
        inside = (middle >= campaign.at) & (middle < campaign.at + campaign.seconds)
        rates[inside] *= campaign.factor
    for spike in arrivals.spikes:
        if spike.within:
            start, end = spike.at, spike.at + spike.within
            low = np.clip(np.arange(bins) * width, start, end)
            high = np.clip(np.arange(1, bins + 1) * width, start, end)
            rates += spike.size / spike.within * (high - low) / width
    return rates, width


def expected_requests(arrivals: Arrivals) -> float:
    """The expected number of requests."""
    in_spikes = sum(spike.size for spike in arrivals.spikes if not spike.within)
    recorded = 0 if arrivals.trace is None else len(arrivals.trace)
    rates, width = rate_profile(arrivals)
    beyond = rates[-1] * (len(rates) * width - arrivals.horizon)
    return float(rates.sum() * width - beyond + in_spikes + recorded)


def check_arrivals(arrivals: Arrivals) -> None:
    """Raise ConfigError, naming the field, if a value is invalid."""
    check_amounts("arrivals", horizon=arrivals.horizon, rate=arrivals.rate)
    if arrivals.horizon == 0:
        raise ConfigError("arrivals.horizon: must be more than 0 seconds")
    if not math.isfinite(arrivals.growth) or arrivals.growth <= -1:
        raise ConfigError(f"arrivals.growth: {arrivals.growth:g} leaves no requests")
    _check_shape("daily_shape", arrivals.daily_shape, 24)
    _check_shape("weekly_shape", arrivals.weekly_shape, 7)
    for at, spike in enumerate(arrivals.spikes):
        where = f"arrivals.spikes.{at}"
        check_amounts(where, size=spike.size, at=spike.at, within=spike.within)
        if spike.at + spike.within > arrivals.horizon:
            raise ConfigError(f"{where}.at: after the horizon of {arrivals.horizon:g} s")
    for at, each in enumerate(arrivals.campaigns):
        check_amounts(
            f"arrivals.campaigns.{at}", at=each.at, seconds=each.seconds, factor=each.factor
        )
    if arrivals.trace is not None:
        check_times(arrivals.trace, "arrivals.trace")
        if arrivals.trace[-1] > arrivals.horizon * (1.0 + 1e-9) + 1e-6:  # as differences round
            raise ConfigError(
                f"arrivals.horizon: {arrivals.horizon:g} s, before the last request of the trace "
                f"at {arrivals.trace[-1]:g} s"
            )


def _check_shape(name: str, shape: tuple[float, ...], length: int) -> None:
    if not shape:
        return
    if len(shape) != length:
        raise ConfigError(f"arrivals.{name}: {len(shape)} weights; expected {length}")
    check_amounts(f"arrivals.{name}", **{str(at): weight for at, weight in enumerate(shape)})
    if not any(shape):
        raise ConfigError(f"arrivals.{name}: all weights are 0")
