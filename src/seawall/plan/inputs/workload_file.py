"""A workload from a TOML file, or from the flags of a command."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, structs

from seawall.errors import ConfigError
from seawall.plan.inputs.arrivals import DAY, Campaign, Spike
from seawall.plan.inputs.distributions import Distribution
from seawall.plan.inputs.model_file import model_from_flags, model_of
from seawall.plan.inputs.notation import (
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
    "from_flags",
    "read_workload",
    "with_fields",
    "workload_of",
]

WORKLOAD_TABLES = frozenset({"arrivals", "service", "clients", "model"})

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
        daily: Requests a day: `1200000`, `1.2M`.
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
        arrivals = structs.replace(arrivals, rate=parse_amount(daily, "daily") / DAY)
        sources["arrivals.rate"] = "given: requests a day"
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
        clients = _clients_of(service, sources)
    model = model_from_flags(
        workload.model, sources,
        tokens_a_minute=model_tpm, requests_a_minute=model_rpm, max_tokens=max_tokens,
    )  # fmt: skip
    return structs.replace(
        workload, arrivals=arrivals, service=service, clients=clients, model=model, sources=sources
    )


def _clients_of(service: Service, sources: dict[str, str]) -> Clients:
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
    times as in `notation`. `arrivals.daily` is the number of requests a day, `arrivals.spikes` a list such
    as `["5000@20s"]`, `arrivals.trace` a file for `from_trace`, relative to this one;
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
    clients = Clients() if "patience" in calling else _clients_of(service, sources)
    return Workload(
        arrivals=with_fields(workload.arrivals, arriving, "arrivals"),
        service=service,
        clients=with_fields(clients, calling, "clients"),
        model=model_of(_table(document, "model"), workload.model, sources),
        sources=sources,
    )


def _read_arrivals(arriving: dict[str, Any]) -> None:
    """Parse the texts of the table, in place."""
    if "daily" in arriving:
        arriving["rate"] = parse_amount(str(arriving.pop("daily")), "arrivals.daily") / DAY
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


def with_fields(base: T, fields: dict[str, Any], where: str) -> T:
    """A copy of `base` with fields of a TOML table, each converted to its type.

    Raises:
        ConfigError: A field is unknown or of another type; it is named, in the table `where`.
    """
    known = base.__struct_fields__
    hints = {each.name: each.type for each in structs.fields(base)}
    values = {}
    for key, value in fields.items():
        if key not in known:
            raise ConfigError(f"{where}.{key}: unknown; known: {', '.join(known)}")
        try:
            values[key] = msgspec.convert(value, hints[key], strict=True)
        except msgspec.ValidationError as error:
            raise ConfigError(f"{where}.{key}: {error}") from None
    return structs.replace(base, **values)
