"""Windows: the parts of a month that are simulated.

Within an hour of the day the rate is constant, so that a window of a few thousand requests
represents all of it. Spikes and campaigns are simulated from a little before until they are over,
a recorded trace as it is.
"""

import numpy as np
from msgspec import Struct, structs

from seawall.errors import ConfigError
from seawall.plan.inputs.arrivals import DAY, Arrivals, Campaign, Spike
from seawall.plan.inputs.question import MONTH, Question
from seawall.plan.inputs.workload import Workload

__all__ = ["Month", "Window", "check_amount", "longer", "month_of"]

_LEVELS = 4
_ENOUGH = 2_000.0  # requests in a window of ordinary time
_MOST = 10_000.0  # requests beside a spike in its window
_FEW = 300.0  # requests in a window of ordinary time that is longer than a month
_LEAST_A_DAY, _MOST_A_DAY, _MOST_AT_ONCE = 1e-3, 1e12, 10_000_000


class Window(Struct, frozen=True, kw_only=True):
    """A window that is simulated.

    Attributes:
        workload: With arrivals of this window only.
        seconds: Of a month that it represents.
        at: Start of the time that counts for the objective: that of the spike. In ordinary time it
            starts when the run has become stationary, if that is later.
        until: End of that time: its last requests are due.
        size: Requests of the spike.
        event: Whether it is a spike or a campaign, not ordinary time.
        recorded: Whether it is a recorded trace.
    """

    workload: Workload
    seconds: float
    at: float
    until: float
    size: float
    event: bool
    recorded: bool = False

    @property
    def horizon(self) -> float:
        """Seconds that are simulated."""
        return self.workload.arrivals.horizon


class Month(Struct, frozen=True, kw_only=True):
    """The windows of a month.

    Attributes:
        judged: The window that the objective applies to.
        events: Other spikes and campaigns.
        ordinary: Other windows of ordinary time.
        requests: In a month, with spikes.
        a_day: Requests a day, without spikes.
        peak: Requests in service at once at most, approximately.
        busy: Requests in service between spikes, on average.
        usual: Requests in service between spikes, in the busiest hour.
    """

    judged: Window
    events: tuple[Window, ...]
    ordinary: tuple[Window, ...]
    requests: float
    a_day: float
    peak: float
    busy: float
    usual: float


def month_of(question: Question) -> Month:
    """The windows of a month of a question's workload.

    Raises:
        ConfigError: There are no requests, they take no time, or spikes fill the month.
    """
    workload, options = question.workload, question.options
    arrivals, mean = workload.arrivals, workload.service.mean_seconds
    no_rate = not arrivals.rate and not any(spike.size for spike in arrivals.spikes)
    if no_rate and arrivals.trace is None:
        raise ConfigError("arrivals: no requests; give --daily, --spike or --trace")
    if not mean > 0:
        raise ConfigError("service: requests take no time; give a duration of more than 0")
    events = [_event(workload, spike, options.spikes_a_month) for spike in arrivals.spikes]
    events = [each for each in events if each.size > 0]
    ordinary = _recorded(workload) if arrivals.trace is not None else _levels(workload)
    total = sum(each.seconds for each in ordinary)
    taken = sum(each.seconds for each in events)
    campaigns = [_campaign(workload, each, options.spikes_a_month) for each in arrivals.campaigns]
    taken += sum(each.seconds for each in campaigns)
    if taken >= MONTH:
        raise ConfigError(
            f"options.spikes_a_month: {options.spikes_a_month:g} spikes last longer than a month"
        )
    share = (MONTH - taken) / total
    rate = sum(_rate(each) * each.seconds for each in ordinary) / total
    ordinary = [structs.replace(each, seconds=each.seconds * share) for each in ordinary]
    if events:
        judged = max(events, key=lambda each: each.size)
    else:
        judged = max([*campaigns, *ordinary], key=_rate)
    rest = [each for each in [*events, *campaigns] if each is not judged]
    requests = sum(
        each.workload.expected_requests * each.seconds / each.horizon
        for each in [*events, *campaigns, *ordinary]
    )
    busy = rate * mean
    fastest = max(_rate(each) for each in [judged, *ordinary]) * mean
    return Month(
        judged=judged,
        events=tuple(rest),
        ordinary=tuple(each for each in ordinary if each is not judged),
        requests=requests,
        a_day=rate * DAY,
        peak=_at_once(judged, mean) if judged.event else fastest + 3.0 * np.sqrt(fastest) + 1.0,
        busy=busy,
        usual=max(_rate(each) for each in ordinary) * mean,
    )


def check_amount(question: Question) -> None:
    """Raise ConfigError, naming the flag, if there are too few or too many requests."""
    arrivals = question.workload.arrivals
    a_day, flag = arrivals.rate * DAY, "--daily"
    if arrivals.trace is not None:
        a_day, flag = a_day + len(arrivals.trace) / arrivals.horizon * DAY, "--trace"
    most = max([0, *(spike.size for spike in arrivals.spikes)])
    if 0.0 < a_day < _LEAST_A_DAY:
        raise ConfigError(
            f"arrivals ({flag}): {a_day:g} requests a day; 0, or at least {_LEAST_A_DAY:g}"
        )
    if a_day > _MOST_A_DAY:
        raise ConfigError(f"arrivals ({flag}): {a_day:g} requests a day; at most {_MOST_A_DAY:g}")
    if most > _MOST_AT_ONCE:
        raise ConfigError(f"arrivals (--spike): {most:,} requests; at most {_MOST_AT_ONCE:,}")


def longer(window: Window) -> Window:
    """The window with twice the time before its event, or of twice the length in ordinary time."""
    arrivals = window.workload.arrivals
    more = window.at if window.event else window.horizon
    shift = more if window.event else 0.0
    changed = structs.replace(
        arrivals,
        horizon=arrivals.horizon + more,
        spikes=tuple(structs.replace(each, at=each.at + shift) for each in arrivals.spikes),
        campaigns=tuple(structs.replace(each, at=each.at + shift) for each in arrivals.campaigns),
    )
    return structs.replace(
        window,
        workload=structs.replace(window.workload, arrivals=changed),
        at=window.at + shift,
        until=window.until + more,
    )


def _at_once(window: Window, mean: float) -> float:
    """Requests in service at once: of the spike, and of the rate beside it."""
    within = max(window.until - window.at - mean, 1e-9)
    in_spike = window.size * min(1.0, mean / within)
    base = window.workload.arrivals.rate * mean
    return in_spike + base + 3.0 * float(np.sqrt(base)) + 1.0


def _rate(window: Window) -> float:
    return window.workload.expected_requests / window.horizon


def _rate_at(arrivals: Arrivals, at: float) -> float:
    """The Poisson rate at a time of the day and week, campaigns included."""
    rate: float = arrivals.rate * (1.0 + arrivals.growth) ** (at / (30 * DAY))
    if arrivals.daily_shape:
        rate *= arrivals.daily_shape[int(at // 3_600) % 24] * 24 / sum(arrivals.daily_shape)
    if arrivals.weekly_shape:
        rate *= arrivals.weekly_shape[int(at // DAY) % 7] * 7 / sum(arrivals.weekly_shape)
    for each in arrivals.campaigns:
        if each.at <= at < each.at + each.seconds:
            rate *= each.factor
    return rate


def _event(workload: Workload, spike: Spike, a_month: float) -> Window:
    arrivals, service = workload.arrivals, workload.service
    mean = service.mean_seconds
    rate = _rate_at(arrivals, spike.at)
    before = max(20.0, 5.0 * mean)
    after = spike.within + max(70.0, 3.0 * mean)
    if rate * (before + after) > _MOST:
        after = max(spike.within + 3.0 * mean + 10.0, _MOST / rate - before)
    if arrivals.trace is not None:
        before = min(before, spike.at)
    trace = None
    if arrivals.trace is not None:
        start, end = spike.at - before, spike.at + after
        inside = (arrivals.trace >= start) & (arrivals.trace < end)
        trace = arrivals.trace[inside] - start if inside.any() else None
    changed = Arrivals(
        horizon=before + after,
        rate=rate,
        spikes=(Spike(spike.size, before, spike.within),),
        trace=trace,
    )
    return Window(
        workload=structs.replace(workload, arrivals=changed),
        seconds=a_month * (before + after),
        at=before,
        until=before + spike.within + mean,
        size=float(spike.size),
        event=True,
    )


def _campaign(workload: Workload, campaign: Campaign, a_month: float) -> Window:
    """The window of a campaign: its first ten minutes represent all of it."""
    arrivals = workload.arrivals
    base = _rate_at(structs.replace(arrivals, campaigns=()), campaign.at)
    mean = workload.service.mean_seconds
    before = max(20.0, 5.0 * mean)
    rate = base * campaign.factor
    length = min(campaign.seconds, 600.0, max(60.0, _MOST / rate if rate else 600.0))
    changed = Arrivals(
        horizon=before + length, rate=base, campaigns=(Campaign(before, length, campaign.factor),)
    )
    return Window(
        workload=structs.replace(workload, arrivals=changed),
        seconds=a_month * campaign.seconds / length * (before + length),
        at=before,
        until=before + length,
        size=rate * length,
        event=True,
    )


def _recorded(workload: Workload) -> list[Window]:
    arrivals = structs.replace(workload.arrivals, spikes=(), campaigns=())
    if workload.expected_requests < 1:
        raise ConfigError("arrivals.trace: no requests")
    return [
        Window(
            workload=structs.replace(workload, arrivals=arrivals),
            seconds=arrivals.horizon,
            at=0.0,
            until=arrivals.horizon,
            size=workload.expected_requests,
            event=False,
            recorded=True,
        )
    ]


def _levels(workload: Workload) -> list[Window]:
    """The hours of a week in at most four groups of similar rate; the busiest is one of them."""
    arrivals = structs.replace(workload.arrivals, campaigns=(), spikes=(), growth=0.0)
    # Growth: the rate in the middle of the month.
    growth = (1.0 + workload.arrivals.growth) ** 0.5
    changing = arrivals.daily_shape or arrivals.weekly_shape
    hours = np.arange(168 if changing else 1) * 3_600.0 + 1.0
    rates = np.sort([_rate_at(arrivals, hour) * growth for hour in hours])[::-1]
    busiest = int((rates >= rates[0] * 0.99).sum())
    groups = [rates[:busiest]]
    if busiest < len(rates):
        parts = np.array_split(rates[busiest:], min(_LEVELS - 1, len(rates) - busiest))
        groups += [part for part in parts if len(part)]
    return [_level(workload, float(each.mean()), len(each)) for each in groups]


def _level(workload: Workload, rate: float, hours: int) -> Window:
    warm = 3.0 * workload.service.mean_seconds + 1.0
    # Until enough requests have arrived; if that takes more than a month, until a few have.
    enough = max(_ENOUGH, min(60.0 * rate, 5.0 * _ENOUGH))
    horizon = 3_600.0
    if rate:
        horizon = max(min(MONTH, warm + enough / rate), _FEW / rate)
    return Window(
        workload=structs.replace(workload, arrivals=Arrivals(horizon=horizon, rate=rate)),
        seconds=hours * 3_600.0,
        at=min(warm, horizon / 2),
        until=horizon,
        size=rate * horizon,
        event=False,
    )
