"""What is asked of the service: who comes when, what a request takes, what callers put up with."""

import math
from pathlib import Path

from msgspec import Struct, field, structs

from seawall.errors import ConfigError
from seawall.plan.arrivals import Arrivals, check_arrivals, expected_requests
from seawall.plan.checks import amounts
from seawall.plan.distributions import Distribution, empirical
from seawall.plan.service import DEFAULT_SOURCES, Service, check_service
from seawall.plan.trace import Trace, read_trace

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


def check_clients(clients: Clients) -> None:
    """Raise ConfigError, naming the field, if they are nonsense."""
    amounts("clients", retries=clients.retries, backoff=clients.backoff)
    if clients.retries > 20:
        raise ConfigError("clients.retries: more than 20")
    if not clients.patience > 0:
        raise ConfigError("clients.patience: must be more than 0 seconds")
    if not clients.backoff_cap >= 0:
        raise ConfigError(f"clients.backoff_cap: {clients.backoff_cap:g} is not a time")
