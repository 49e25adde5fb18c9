"""What is asked of the service: who comes when, what a request takes, what callers put up with."""

import math
from pathlib import Path

from msgspec import Struct, field, structs

from seawall.errors import ConfigError
from seawall.plan.inputs.arrivals import Arrivals, check_arrivals, expected_requests
from seawall.plan.inputs.checks import check_amounts
from seawall.plan.inputs.distributions import empirical
from seawall.plan.inputs.exports.reading import read_trace
from seawall.plan.inputs.service import (
    DEFAULT_SOURCES,
    Service,
    Stage,
    check_service,
    split_measured,
)
from seawall.plan.inputs.trace import Trace

__all__ = ["Clients", "Workload", "from_trace"]


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


class Workload(Struct, frozen=True, kw_only=True):
    """Arrivals, service and clients. Raises ConfigError, naming the field, if one is nonsense.

    sources: where its figures are from, by field.
    """

    arrivals: Arrivals = Arrivals()
    service: Service = Service()
    clients: Clients = Clients()
    sources: dict[str, str] = field(default_factory=lambda: dict(DEFAULT_SOURCES))

    def __post_init__(self) -> None:
        check_arrivals(self.arrivals)
        check_service(self.service)
        check_clients(self.clients)

    @property
    def expected_requests(self) -> float:
        """How many will come, on average."""
        return expected_requests(self.arrivals)

    @property
    def most_attempts(self) -> float:
        """A number that attempts do not exceed: every request comes as often as it may."""
        expected = self.expected_requests
        return (expected + 20.0 * math.sqrt(expected) + 100.0) * (1 + self.clients.retries)


def from_trace(
    path: Path, *, workload: Workload | None = None, seconds_per_token: float = 0.02
) -> Workload:
    """A workload whose arrivals are recorded: a CSV file, or an export; see `exports.reading`.

    Where the file has durations of whole requests, as an access log, the model's stage takes what
    the others leave; other durations are those of the model's stage; where it has tokens, that
    is 0.5 s and `seconds_per_token` each (50 tokens a second: assumed). Counts per period become
    arrivals spread evenly at random within each, always the same.
    """
    trace = read_trace(path)
    base = workload or Workload()
    stages, source = _stages(trace, base.service.stages, seconds_per_token)
    horizon = trace.horizon or float(trace.times[-1]) + 1e-3
    arrivals = structs.replace(base.arrivals, trace=trace.times, rate=0.0, horizon=horizon)
    sources = base.sources | {"arrivals.trace": f"{path.name}: {trace.source}"} | source
    return structs.replace(
        base, arrivals=arrivals, service=structs.replace(base.service, stages=stages),
        sources=sources,
    )  # fmt: skip


def _stages(
    trace: Trace, stages: tuple[Stage, ...], per_token: float
) -> tuple[tuple[Stage, ...], dict[str, str]]:
    """The stages as the trace has them, and how it says so."""
    if trace.durations is not None and trace.whole:
        split = split_measured(trace.durations, stages)
        return split, {"service.stages.seconds": "the trace's durations, less the other stages"}
    if trace.durations is not None:
        found = empirical(trace.durations.tolist(), field="trace.durations")
        said = "the trace's durations"
    elif trace.tokens is not None:
        seconds = 0.5 + per_token * trace.tokens
        found = empirical(seconds.tolist(), field="trace.tokens")
        said = f"the trace's tokens at {per_token * 1e3:g} ms each, and 0.5 s"
    else:
        return stages, {}
    changed = tuple(
        structs.replace(stage, seconds=found) if stage.model else stage for stage in stages
    )
    return changed, {"service.stages.model": said}


def check_clients(clients: Clients) -> None:
    """Raise ConfigError, naming the field, if they are nonsense."""
    check_amounts("clients", retries=clients.retries, backoff=clients.backoff)
    if clients.retries > 20:
        raise ConfigError("clients.retries: more than 20")
    if not clients.patience > 0:
        raise ConfigError("clients.patience: must be more than 0 seconds")
    if not clients.backoff_cap >= 0:
        raise ConfigError(f"clients.backoff_cap: {clients.backoff_cap:g} is not a time")
