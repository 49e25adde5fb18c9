"""A workload from a TOML file, or from the flags of a command."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, structs

from seawall.errors import ConfigError
from seawall.plan.inputs.arrivals import Arrivals, Campaign, Spike, with_daily
from seawall.plan.inputs.distributions import Distribution
from seawall.plan.inputs.model_file import model_from_flags, model_of
from seawall.plan.inputs.notation import (
    in_unit,
    parse_amount,
    parse_distribution,
    parse_seconds,
    parse_spike,
    read_document,
)
from seawall.plan.inputs.service import DEFAULT_SOURCES, Service, Stage, split_duration
from seawall.plan.inputs.workload import Clients, Workload, from_trace

__all__ = [
    "WORKLOAD_TABLES",
    "clients_of",
    "from_flags",
    "read_workload",
    "with_fields",
    "with_units",
    "workload_of",
]

WORKLOAD_TABLES = frozenset({"arrivals", "service", "clients", "model"})
_SCALED = "scaled to"
_SHORTEST = 60.0  # seconds of a trace that a day is extrapolated from

T = TypeVar("T", bound=Struct)


def from_flags(
    *,
    base: Workload | None = None,
    daily: str = "",
    spikes: Iterable[str] = (),
    duration: str = "",
    start: str = "",
    horizon: str = "",
    trace: Path | None = None,
    model_tpm: str = "",
    model_rpm: str = "",
    max_tokens: str = "",
) -> Workload:
    """A workload from flags; what is empty is taken from `base`.

    Args:
        base: A default workload by default.
        daily: Requests a day: `1200000`, `1.2M`. A trace is scaled to that; see `with_daily`.
        spikes: `5000@20s`, `5000@20s+10s`.
        duration: Of a request: `4s..7s`.
        start: Initialisation of a process: `1s`.
        horizon: Time simulated; a day by default.
        trace: A CSV file or an export; see `from_trace`.
        model_tpm: The model's quota of tokens a minute: `2M`.
        model_rpm: The model's quota of requests a minute.
        max_tokens: Bound of a call's output; `none`: the model's own.

    Raises:
        ConfigError: A value is invalid; the flag is named.
    """
    workload = base or Workload()
    if trace is not None:
        workload = from_trace(trace, workload=workload)
    arrivals, service, sources = workload.arrivals, workload.service, dict(workload.sources)
    if horizon:
        arrivals = structs.replace(arrivals, horizon=parse_seconds(horizon, "horizon"))
    if daily:
        arrivals = _with_daily(arrivals, parse_amount(daily, "daily"), "daily", sources)
    _check_span(arrivals, sources)
    given_spikes = tuple(Spike(*parse_spike(text, "spike")) for text in spikes)
    if given_spikes:
        arrivals = structs.replace(arrivals, spikes=given_spikes)
        sources["arrivals.spikes"] = "given"
    if duration:
        stages = split_duration(parse_distribution(duration, "duration"), service.stages)
        service = structs.replace(service, stages=stages)
        sources["service.stages.seconds"] = "given: the whole; its parts in the article's shape"
    if start:
        service = structs.replace(service, start=parse_distribution(start, "init"))
        sources["service.start"] = "given"
    clients = workload.clients
    if duration and sources.get("clients") == DEFAULT_SOURCES["clients"]:
        clients = clients_of(service, sources)
    model = model_from_flags(
        workload.model, sources,
        tokens_a_minute=model_tpm, requests_a_minute=model_rpm, max_tokens=max_tokens,
    )  # fmt: skip
    return structs.replace(
        workload, arrivals=arrivals, service=service, clients=clients, model=model, sources=sources
    )


def _with_daily(arrivals: Arrivals, daily: float, field: str, sources: dict[str, str]) -> Arrivals:
    """The arrivals with this number of requests a day, which is added to the sources."""
    if arrivals.trace is None:
        sources["arrivals.rate"] = "given: requests a day"
    else:
        read = sources.get("arrivals.trace", "given").partition(f"; {_SCALED}")[0]
        sources["arrivals.trace"] = f"{read}; {_SCALED} {daily:,.10g} a day with its shape"
    return with_daily(arrivals, daily, field)


def _check_span(arrivals: Arrivals, sources: dict[str, str]) -> None:
    """Raise ConfigError if a day would be extrapolated from seconds."""
    if arrivals.trace is None or _SCALED in sources.get("arrivals.trace", ""):
        return
    if arrivals.horizon < _SHORTEST:
        raise ConfigError(
            f"trace: {len(arrivals.trace):,} requests in {arrivals.horizon:.3g} s: too short for "
            f"the traffic of a month, which needs {_SHORTEST:.0f} s; give the requests a day too: "
            "--daily N scales a trace"
        )


def clients_of(service: Service, sources: dict[str, str]) -> Clients:
    """Clients of a slow service wait longer than a minute: for three times its mean duration."""
    longer = 3.0 * service.mean_seconds
    if longer <= Clients().patience:
        return Clients()
    sources["clients"] = (
        f"assumed: a client waits {longer:,.0f} s, three times a request, and retries three times"
    )
    return Clients(patience=longer)


def read_workload(path: Path) -> Workload:
    """Read a workload from a TOML file.

    Its tables `arrivals`, `service`, `clients` and `model` have the fields of these classes, with
    times as in `notation`. `arrivals.daily` is the number of requests a day, `arrivals.spikes` a
    list such as `["5000@20s"]`, `arrivals.trace` a file for `from_trace`, relative to this one;
    `service.duration` is that of a whole request, `service.stages` a list of tables with `name`,
    `seconds`, `cpu_ms`, `model`, `store_calls`.

    Raises:
        ConfigError: File and key are named.
    """
    document = read_document(path)
    try:
        unknown = set(document) - WORKLOAD_TABLES
        if unknown:
            raise ConfigError(f"{min(unknown)}: unknown; known: arrivals, service, clients, model")
        return workload_of(document, path.parent)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def workload_of(document: dict[str, Any], folder: Path) -> Workload:
    """The workload of a document's tables, those in `WORKLOAD_TABLES`; others are ignored."""
    arriving = _table(document, "arrivals")
    serving = _table(document, "service")
    workload = Workload()
    if "trace" in arriving:
        workload = from_trace(folder / str(arriving.pop("trace")))
    given: dict[str, str] = {}
    daily = arriving.pop("daily", None)
    _read_arrivals(arriving)
    if "stages" in serving:
        serving["stages"] = tuple(
            _stage(each, f"service.stages.{at}")
            for at, each in enumerate(_list(serving, "stages", "service"))
        )
    for key in ("first_token", "start", "cold_request", "restore"):
        if key in serving:
            serving[key] = _times(serving[key], f"service.{key}")
    if "duration" in serving:
        whole = _times(serving.pop("duration"), "service.duration")
        serving["stages"] = split_duration(whole, serving.get("stages", workload.service.stages))
    for where, table in (("arrivals", arriving), ("service", serving)):
        given |= dict.fromkeys((f"{where}.{key}" for key in table), "given")
    service = with_fields(workload.service, serving, "service")
    calling = _table(document, "clients")
    given |= {"clients": "given"} if calling else {}
    sources = workload.sources | given
    arrivals = with_fields(workload.arrivals, arriving, "arrivals")
    if daily is not None:
        amount = parse_amount(str(daily), "arrivals.daily")
        arrivals = _with_daily(arrivals, amount, "arrivals.daily", sources)
    clients = Clients() if "patience" in calling else clients_of(service, sources)
    return Workload(
        arrivals=arrivals,
        service=service,
        clients=with_fields(clients, calling, "clients"),
        model=model_of(_table(document, "model"), workload.model, sources),
        sources=sources,
    )


def _read_arrivals(arriving: dict[str, Any]) -> None:
    """Parse the texts of the table, in place."""
    if "horizon" in arriving:
        arriving["horizon"] = _seconds(arriving["horizon"], "arrivals.horizon")
    if "spikes" in arriving:
        arriving["spikes"] = tuple(
            Spike(*parse_spike(str(each), f"arrivals.spikes.{at}"))
            for at, each in enumerate(_list(arriving, "spikes", "arrivals"))
        )
    if "campaigns" in arriving:
        arriving["campaigns"] = tuple(
            Campaign(
                *(
                    _seconds(each.get(key), f"arrivals.campaigns.{at}.{key}")
                    for key in ("at", "seconds", "factor")
                )
            )
            for at, each in enumerate(_list(arriving, "campaigns", "arrivals"))
        )


def _table(document: dict[str, Any], name: str) -> dict[str, Any]:
    table = document.get(name, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{name}: is not a table")
    return dict(table)


def _list(table: dict[str, Any], key: str, where: str) -> list[Any]:
    value = table[key]
    if not isinstance(value, list):
        raise ConfigError(f"{where}.{key}: is not a list")
    return value


def _seconds(value: object, name: str) -> float:
    return parse_seconds(str(value), name)


def _times(value: object, name: str) -> Distribution:
    return parse_distribution(str(value), name)


def _stage(table: object, where: str) -> Stage:
    if not isinstance(table, dict) or "name" not in table or "seconds" not in table:
        raise ConfigError(f"{where}: a stage is a table with name and seconds")
    fields = table | {"seconds": _times(table["seconds"], f"{where}.seconds")}
    return with_fields(Stage(str(table["name"]), fields["seconds"]), fields, where)


# Units of fields that a file may write with their unit: "5s", "512MB", "1%". Others are amounts.
_FIELD_UNITS = {
    **dict.fromkeys(("first_token_p99", "latency_p99", "backoff", "backoff_cap", "patience"), "s"),
    **dict.fromkeys(("kb_to_callers", "kb_to_model", "log_kb", "memory_kb_in_flight"), "KB"),
    "cpu_ms": "ms",
    "error_share": "share",
    "lead_minutes": "min",
    "memory_mb": "MB",
    "monthly_cost": "money",
}


def with_units(
    fields: dict[str, Any], hints: dict[str, Any], where: str, currency: str = "USD"
) -> dict[str, Any]:
    """Fields of a TOML table with the texts of numbers parsed, each in the unit of its field.

    Args:
        fields: Of the table.
        hints: Types of the fields; texts of those that are numbers are parsed.
        where: The table, for errors.
        currency: Of amounts of money.

    Raises:
        ConfigError: A text is not such a quantity; the field is named.
    """
    parsed = dict(fields)
    for key, value in fields.items():
        unit, name = _FIELD_UNITS.get(key, ""), f"{where}.{key}"
        numeric = any(hints.get(key) == each for each in (float, int, float | None, int | None))
        if isinstance(value, str) and numeric:
            number = in_unit(value, unit, name, currency)
            whole = hints[key] in (int, int | None)
            parsed[key] = int(number) if whole and number == int(number) else number
        elif unit == "share" and isinstance(value, int | float) and not isinstance(value, bool):
            parsed[key] = in_unit(repr(value), unit, name)  # 1 is 1 % here too
    return parsed


def with_fields(base: T, fields: dict[str, Any], where: str, currency: str = "USD") -> T:
    """A copy of `base` with fields of a TOML table, each converted to its type and unit.

    Raises:
        ConfigError: A field is unknown or of another type; it is named, in the table `where`.
    """
    known = base.__struct_fields__
    hints = {each.name: each.type for each in structs.fields(base)}
    values = {}
    for key, value in with_units(fields, hints, where, currency).items():
        if key not in known:
            raise ConfigError(f"{where}.{key}: unknown; known: {', '.join(known)}")
        try:
            values[key] = msgspec.convert(value, hints[key], strict=True)
        except msgspec.ValidationError as error:
            raise ConfigError(f"{where}.{key}: {error}") from None
    return structs.replace(base, **values)
