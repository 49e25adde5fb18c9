"""What is asked of the service: who comes when, what one request takes, what callers put up with.

Every default says where it is from; `sources` lists them for a report.
"""

import math
from pathlib import Path

import numpy as np
from msgspec import Struct, field, structs
from numpy.typing import NDArray

from seawall.errors import ConfigError
from seawall.plan.distributions import (
    Distribution,
    constant,
    empirical,
    lognormal,
    mean_of,
    uniform,
)
from seawall.plan.trace import Trace, check_times, read_trace

__all__ = [
    "ARTICLE_STAGES",
    "DEFAULT_SOURCES",
    "Arrivals",
    "Campaign",
    "Clients",
    "Service",
    "Spike",
    "Stage",
    "Workload",
    "from_trace",
    "split_duration",
]

DAY = 86_400.0
_ARTICLE = "the reference article, Lambda vs. EKS for AI Orchestration at Scale"


class Stage(Struct, frozen=True):
    """A step of a request.

    seconds: how long it takes alone, with its processor time. cpu_ms: of that, on the processor.
    model: it is the call of the model; at most one stage is. store_calls: calls of the session
    store in it.
    """

    name: str
    seconds: Distribution
    cpu_ms: float = 0.0
    model: bool = False
    store_calls: int = 0


# The article's five. Processor time: 2.5 ms a turn, the goal for the whole pipeline (DESIGN.md
# section 7), most of it while the model's text streams on. Store calls: Seawall's two a turn.
ARTICLE_STAGES = (
    Stage("session", constant(0.1), cpu_ms=0.2, store_calls=1),
    Stage("authentication", constant(0.2), cpu_ms=0.1),
    Stage("intent", constant(0.5), cpu_ms=0.3),
    Stage("model", uniform(3.0, 6.0), cpu_ms=1.5, model=True),
    Stage("response", constant(0.2), cpu_ms=0.4, store_calls=1),
)

DEFAULT_SOURCES = {
    "service.stages.seconds": f"{_ARTICLE}: 100, 200 and 500 ms, 3-6 s, 200 ms",
    "service.stages.cpu_ms": "the goal for the whole pipeline, 2.5 ms; measure your own",
    "service.stages.store_calls": "Seawall's own: two round trips a turn",
    "service.first_token": "assumed: median 0.5 s, p99 2 s of a hosted model; measure your own",
    "service.start": f"{_ARTICLE}: one second of initialisation",
    "service.memory_mb": "measured: an environment with agent libraries takes 40-100 MB",
    "service.memory_kb_in_flight": "the goal for a turn in flight, 40 KB; frameworks take 30-540",
    "service.connections": "model, store and identity provider: one each",
    "clients": "assumed: a caller waits 60 s and tries three times, with full jitter from 0.5 s",
}


class Service(Struct, frozen=True, kw_only=True):
    """What one request takes, and one start of the process that serves it.

    first_token: from the start of the model's call to its first token. start: initialisation of the
    process. cold_request: a whole request that had to start its environment, where it was
    measured in one: it stands for start and stages. restore: of a snapshot, in place of `start`;
    None: a fifth of it. memory_mb: of a process at rest. memory_kb_in_flight: of each request.
    connections: that a process opens to others when it starts.
    """

    stages: tuple[Stage, ...] = ARTICLE_STAGES
    first_token: Distribution = lognormal(0.5, 2.0, cap=30.0)
    start: Distribution = constant(1.0)
    cold_request: Distribution | None = None
    restore: Distribution | None = None
    memory_mb: float = 100.0
    memory_kb_in_flight: float = 40.0
    connections: int = 3

    @property
    def mean_seconds(self) -> float:
        """Of a request by itself."""
        return sum(mean_of(stage.seconds) for stage in self.stages)


class Clients(Struct, frozen=True, kw_only=True):
    """What callers do when they are refused or kept waiting.

    retries: how often they come again after a refusal. backoff, backoff_cap: they wait a random
    time up to min(cap, backoff * 2**n) before (AWS Architecture Blog, «Exponential Backoff And
    Jitter»: full jitter). patience: after so many seconds of an attempt they leave; they come
    again if retry_timeouts.
    """

    retries: int = 3
    backoff: float = 0.5
    backoff_cap: float = 20.0
    patience: float = 60.0
    retry_timeouts: bool = False


class Spike(Struct, frozen=True):
    """A crowd of `size` at `at` seconds; at once, or evenly within `within` seconds."""

    size: int
    at: float
    within: float = 0.0


class Campaign(Struct, frozen=True):
    """From `at` on, for `seconds`, `factor` times as many come."""

    at: float
    seconds: float
    factor: float


class Arrivals(Struct, frozen=True, kw_only=True):
    """Who comes when, from 0 to `horizon` seconds.

    rate: a second, on average over a day, Poisson. daily_shape: 24 relative weights, by hour;
    weekly_shape: seven, by day; none: flat. growth: by how much the rate grows in 30 days, 0.1 for
    ten per cent. trace: times of arrival in order; comes on top.
    """

    horizon: float = DAY
    rate: float = 0.0
    daily_shape: tuple[float, ...] = ()
    weekly_shape: tuple[float, ...] = ()
    growth: float = 0.0
    spikes: tuple[Spike, ...] = ()
    campaigns: tuple[Campaign, ...] = ()
    trace: NDArray[np.float64] | None = None


class Workload(Struct, frozen=True, kw_only=True):
    """Arrivals, service and clients. Raises ConfigError, naming the field, if one is nonsense.

    sources: where its figures are from, by field.
    """

    arrivals: Arrivals = Arrivals()
    service: Service = Service()
    clients: Clients = Clients()
    sources: dict[str, str] = field(default_factory=lambda: dict(DEFAULT_SOURCES))

    def __post_init__(self) -> None:
        _check(self)

    @property
    def expected_requests(self) -> float:
        """How many will come, on average."""
        arrivals = self.arrivals
        crowds = sum(spike.size for spike in arrivals.spikes)
        recorded = 0 if arrivals.trace is None else len(arrivals.trace)
        rates, width = rate_profile(arrivals)
        beyond = rates[-1] * (len(rates) * width - arrivals.horizon)
        return float(rates.sum() * width - beyond + crowds + recorded)


def rate_profile(arrivals: Arrivals) -> tuple[NDArray[np.float64], float]:
    """The rate of the Poisson process in equal bins, and how many seconds a bin is."""
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


def from_trace(path: Path, *, workload: Workload | None = None, seconds_per_token: float = 0.02
               ) -> Workload:
    """A workload whose arrivals are a recorded trace.

    Where the file has durations, they are those of the model's stage; where it has tokens, its
    duration is 0.5 s and `seconds_per_token` each (50 tokens a second: assumed).
    """
    trace = read_trace(path)
    base = workload or Workload()
    seconds, source = _model_seconds(trace, seconds_per_token)
    service = base.service
    if seconds is not None:
        stages = tuple(
            structs.replace(stage, seconds=seconds) if stage.model else stage
            for stage in service.stages
        )
        service = structs.replace(service, stages=stages)
    arrivals = structs.replace(
        base.arrivals, trace=trace.times, rate=0.0, horizon=float(trace.times[-1]) + 1e-3
    )
    sources = base.sources | {"arrivals.trace": path.name} | source
    return structs.replace(base, arrivals=arrivals, service=service, sources=sources)


def _model_seconds(trace: Trace, per_token: float) -> tuple[Distribution | None, dict[str, str]]:
    if trace.durations is not None:
        found = empirical(trace.durations.tolist(), field="trace.durations")
        return found, {"service.stages.model": "the trace's durations"}
    if trace.tokens is not None:
        seconds = 0.5 + per_token * trace.tokens
        return empirical(seconds.tolist(), field="trace.tokens"), {
            "service.stages.model": f"the trace's tokens at {per_token * 1e3:g} ms each, and 0.5 s"
        }
    return None, {}


def split_duration(whole: Distribution, stages: tuple[Stage, ...] = ARTICLE_STAGES
                   ) -> tuple[Stage, ...]:
    """The stages so that all together take `whole`: the model's call takes what the others leave.

    Only for constant and uniform. Where the others take longer already, they shrink in proportion.
    """
    if whole.kind not in ("constant", "uniform"):
        raise ConfigError("service.duration: a constant or a range; else give the stages")
    high = whole.b if whole.kind == "uniform" else whole.a
    others = sum(mean_of(stage.seconds) for stage in stages if not stage.model)
    # Short requests keep the shape of long ones: the model takes three quarters.
    factor = min(1.0, 0.25 * whole.a / others) if others else 0.0
    rest = others * factor
    changed = []
    for stage in stages:
        if stage.model:
            seconds = uniform(whole.a - rest, high - rest, field="service.duration")
        else:
            seconds = constant(mean_of(stage.seconds) * factor)
        changed.append(structs.replace(stage, seconds=seconds))
    return tuple(changed)


def _check(workload: Workload) -> None:
    arrivals, service, clients = workload.arrivals, workload.service, workload.clients
    _amounts("arrivals", horizon=arrivals.horizon, rate=arrivals.rate)
    if arrivals.horizon == 0:
        raise ConfigError("arrivals.horizon: must be more than 0 seconds")
    if not math.isfinite(arrivals.growth) or arrivals.growth <= -1:
        raise ConfigError(f"arrivals.growth: {arrivals.growth:g} leaves nobody")
    for name, shape, length in (
        ("daily_shape", arrivals.daily_shape, 24),
        ("weekly_shape", arrivals.weekly_shape, 7),
    ):
        if shape and len(shape) != length:
            raise ConfigError(f"arrivals.{name}: {len(shape)} weights; it takes {length}")
        _amounts(f"arrivals.{name}", **{str(at): weight for at, weight in enumerate(shape)})
        if shape and not any(shape):
            raise ConfigError(f"arrivals.{name}: all weights are 0")
    for at, spike in enumerate(arrivals.spikes):
        where = f"arrivals.spikes.{at}"
        _amounts(where, size=spike.size, at=spike.at, within=spike.within)
        if spike.at + spike.within > arrivals.horizon:
            raise ConfigError(f"{where}.at: after the horizon of {arrivals.horizon:g} s")
    for at, each in enumerate(arrivals.campaigns):
        _amounts(f"arrivals.campaigns.{at}", at=each.at, seconds=each.seconds, factor=each.factor)
    if arrivals.trace is not None:
        check_times(arrivals.trace, "arrivals.trace")
    if not service.stages:
        raise ConfigError("service.stages: there are none")
    if len(service.stages) > 15:
        raise ConfigError("service.stages: more than 15")
    if sum(stage.model for stage in service.stages) > 1:
        raise ConfigError("service.stages: more than one is the model's")
    for stage in service.stages:
        _amounts(f"service.stages.{stage.name}", cpu_ms=stage.cpu_ms, store_calls=stage.store_calls)
    _amounts(
        "service",
        memory_mb=service.memory_mb,
        memory_kb_in_flight=service.memory_kb_in_flight,
        connections=service.connections,
    )
    _amounts("clients", retries=clients.retries, backoff=clients.backoff)
    if clients.retries > 20:
        raise ConfigError("clients.retries: more than 20")
    if not clients.patience > 0:
        raise ConfigError("clients.patience: must be more than 0 seconds")


def _amounts(where: str, **numbers: float) -> None:
    for name, number in numbers.items():
        if not math.isfinite(number):
            raise ConfigError(f"{where}.{name}: {number} is not a number")
        if number < 0:
            raise ConfigError(f"{where}.{name}: {number:g} is negative")
