"""A workload: arrivals, the service that handles them, and how clients behave."""

import math
from pathlib import Path

from msgspec import Struct, field, structs

from seawall.errors import ConfigError
from seawall.plan.inputs.arrivals import Arrivals, check_arrivals, expected_requests
from seawall.plan.inputs.distributions import check_amounts, empirical
from seawall.plan.inputs.exports.reading import read_trace
from seawall.plan.inputs.exports.trace import Trace, span_of, span_words
from seawall.plan.inputs.model import MODEL_SOURCES, ModelUse, check_model
from seawall.plan.inputs.service import (
    DEFAULT_SOURCES,
    Service,
    Stage,
    check_service,
    split_measured,
)

__all__ = ["Clients", "Workload", "from_trace"]


class Clients(Struct, frozen=True, kw_only=True):
    """How clients retry and time out.

    Before retry n a client waits a random time up to min(backoff_cap, backoff * 2**n) (full jitter:
    AWS Architecture Blog, «Exponential Backoff And Jitter»).

    Attributes:
        retries: After a refusal; at most 20.
        backoff: Seconds.
        backoff_cap: Seconds.
        patience: Timeout of an attempt, seconds.
        retry_timeouts: Whether a client retries after a timeout, too.
    """

    retries: int = 3
    backoff: float = 0.5
    backoff_cap: float = 20.0
    patience: float = 60.0
    retry_timeouts: bool = False


class Workload(Struct, frozen=True, kw_only=True):
    """Arrivals, service and clients.

    Attributes:
        arrivals: Times of the requests.
        service: Times and resources of a request.
        clients: Retries and timeouts.
        model: Tokens and quotas of the model.
        forecast_error: Relative error of forecasts of times, as measured in the lab; it widens the
            intervals of the answer. 0: not measured.
        sources: Where the figures are from, by field; for the list of inputs.

    Raises:
        ConfigError: A value is invalid; the field is named.
    """

    arrivals: Arrivals = Arrivals()
    service: Service = Service()
    clients: Clients = Clients()
    model: ModelUse = ModelUse()
    forecast_error: float = 0.0
    sources: dict[str, str] = field(default_factory=lambda: DEFAULT_SOURCES | MODEL_SOURCES)

    def __post_init__(self) -> None:
        check_arrivals(self.arrivals)
        check_service(self.service)
        check_clients(self.clients)
        check_model(self.model)
        check_amounts("workload", forecast_error=self.forecast_error)

    @property
    def expected_requests(self) -> float:
        """The expected number of requests."""
        return expected_requests(self.arrivals)

    @property
    def most_attempts(self) -> float:
        """An upper bound of the number of attempts, with all retries."""
        expected = self.expected_requests
        return (expected + 20.0 * math.sqrt(expected) + 100.0) * (1 + self.clients.retries)


def from_trace(
    path: Path, *, workload: Workload | None = None, seconds_per_token: float = 0.02
) -> Workload:
    """A workload with recorded arrivals, and the tokens of the trace, if it has them.

    Durations of whole requests, as in an access log, are divided: the model's stage takes what the
    others leave. Other durations are those of the model's stage. Tokens become 0.5 s and
    `seconds_per_token` each. Counts per period become arrivals spread evenly at random within it,
    the same at each call.

    Args:
        path: A CSV file or an export; see `exports.reading.read_trace`.
        workload: Everything but the arrivals; a default workload by default.
        seconds_per_token: Of the model; 50 tokens a second are assumed.

    Raises:
        ConfigError: The file cannot be read; file, line and field are named.
    """
    trace = read_trace(path)
    base = workload or Workload()
    stages, source = _stages(trace, base.service.stages, seconds_per_token)
    horizon = span_of(trace, str(path))
    arrivals = structs.replace(base.arrivals, trace=trace.times, rate=0.0, horizon=horizon)
    sources = (
        base.sources
        | {"arrivals.trace": f"given: {path.name}, {trace.source}: {span_words(trace, horizon)}"}
        | source
    )
    model = _with_tokens(trace, base.model, sources)
    return structs.replace(
        base, arrivals=arrivals, service=structs.replace(base.service, stages=stages),
        model=model, sources=sources,
    )  # fmt: skip


def _with_tokens(trace: Trace, model: ModelUse, sources: dict[str, str]) -> ModelUse:
    """The tokens of the trace in place of those of `model`; sources: of the workload's inputs."""
    kinds = {"input_tokens": trace.input_tokens, "output_tokens": trace.output_tokens}
    found = {
        name: empirical(values.tolist(), field=f"trace.{name}")
        for name, values in kinds.items()
        if values is not None and len(values)
    }
    sources |= {f"model.{name}": "the trace's tokens" for name in found}
    return structs.replace(model, **found)


def _stages(
    trace: Trace, stages: tuple[Stage, ...], per_token: float
) -> tuple[tuple[Stage, ...], dict[str, str]]:
    """The stages with the durations of the trace, and the sources of these."""
    if trace.durations is not None and trace.whole:
        split = split_measured(trace.durations, stages)
        return split, {"service.stages.seconds": "the trace's durations, less the other stages"}
    if trace.durations is not None:
        found = empirical(trace.durations.tolist(), field="trace.durations")
        source = "the trace's durations"
    elif trace.output_tokens is not None:
        seconds = 0.5 + per_token * trace.output_tokens
        found = empirical(seconds.tolist(), field="trace.output_tokens")
        source = f"the trace's tokens at {per_token * 1e3:g} ms each, and 0.5 s"
    else:
        return stages, {}
    changed = tuple(
        structs.replace(stage, seconds=found) if stage.model else stage for stage in stages
    )
    return changed, {"service.stages.model": source}


def check_clients(clients: Clients) -> None:
    """Raise ConfigError, naming the field, if a value is invalid."""
    check_amounts("clients", retries=clients.retries, backoff=clients.backoff)
    if clients.retries > 20:
        raise ConfigError("clients.retries: more than 20")
    if not clients.patience > 0:
        raise ConfigError("clients.patience: must be more than 0 seconds")
    if not clients.backoff_cap >= 0:
        raise ConfigError(f"clients.backoff_cap: {clients.backoff_cap:g} is not a time")
