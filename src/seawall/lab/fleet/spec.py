"""Specification of a fleet, and its notation: `pods=4 cpu=0.5`, or `lambda memory=512`."""

import logging
from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import Struct, structs

from seawall.errors import ConfigError
from seawall.lab.sim_model.reply import SimTimes
from seawall.transport.http_client import Endpoint

__all__ = ["FleetSpec", "parse_fleet"]

_log = logging.getLogger("seawall.lab")


class FleetSpec(Struct, frozen=True, kw_only=True, rename="kebab"):
    """A fleet with its model and its store.

    Attributes:
        kind: Pods, or Lambda environments.
        pods: Servers with one process each.
        cpu: Processors of a pod, 0 for no limit. For Lambda, 1 limits an environment to what its
            memory buys on AWS.
        memory: Of an environment, in MB.
        in_flight: Invocations in one environment; more than 1 is a managed instance.
        provisioned: Environments started ahead.
        snapstart: Restore environments from snapshots.
        concurrency: Environments at most.
        idle: Seconds until an unused environment is reclaimed.
        timeout: Of an invocation, in seconds.
        init: Seconds until an initialisation is retried. AWS has 10, for environments that do not
            share processors.
        slots: Turns in flight in one pod.
        store: "sqlite", or the endpoint of a DynamoDB.
        model: URL of a model; "" for a simulated model with `times`.
        balance: How the balancer chooses a pod.
        times: Service times of the simulated model.
    """

    kind: Literal["pods", "lambda"]
    pods: int = 2
    cpu: float = 0.0
    memory: int = 512
    in_flight: int = 1
    provisioned: int = 0
    snapstart: bool = False
    concurrency: int = 1_000
    idle: float = 300.0
    timeout: float = 300.0
    init: float = 120.0
    slots: int = 6_000
    store: str = "sqlite"
    model: str = ""
    balance: Literal["least", "round-robin"] = "least"
    times: SimTimes = SimTimes()

    @property
    def store_kind(self) -> str:
        """`sqlite` or `dynamodb`."""
        return "sqlite" if self.store == "sqlite" else "dynamodb"

    @property
    def title(self) -> str:
        """The fleet in a few words."""
        if self.kind == "pods":
            share = f" of {self.cpu:g} processors" if self.cpu else ""
            return f"{self.pods} pods{share}"
        kind = "Lambda, managed" if self.in_flight > 1 else "Lambda"
        kind += ", SnapStart" if self.snapstart else ""
        kind += f", {self.provisioned} provisioned" if self.provisioned else ""
        return f"{kind}, {self.memory} MB"


# Those of the local Lambda (seawall.lab.local_lambda.settings); a day for waiting times.
_BOUNDS = {
    "cpu": (0, 1_024),
    "memory": (128, 32_768),
    "in_flight": (1, 1_600),
    "provisioned": (0, 100_000),
    "timeout": (0.001, 900),
    "idle": (0.001, 86_400),
    "init": (0.001, 86_400),
}
_ONLY_PODS = {"pods", "slots", "balance"}
_ONLY_LAMBDA = {
    *("memory", "in_flight", "provisioned", "snapstart", "concurrency", "idle", "timeout", "init"),
}


def parse_fleet(words: Sequence[str], times: SimTimes | None = None) -> FleetSpec:
    """Parse a fleet.

    Args:
        words: `pods=4` or `lambda`, and `name=value`. `places` is accepted for `slots`, with a
            warning.
        times: Service times of the simulated model, if not the default.

    Raises:
        ConfigError: A word is unknown, or has no valid value.
    """
    kind, given = _split(words)
    if "places" in given:
        _log.warning("fleet: places is now called slots")
        given.setdefault("slots", given.pop("places"))
    foreign = set(given) & (_ONLY_LAMBDA if kind == "pods" else _ONLY_PODS)
    if foreign:
        raise ConfigError(f"fleet: {min(foreign)}: does not apply to {kind}")
    known = {each.name for each in structs.fields(FleetSpec)} - {"kind", "times"}
    if unknown := set(given) - known:
        raise ConfigError(f"fleet: {min(unknown)}: unknown; known: {', '.join(sorted(known))}")
    fields = {name.replace("_", "-"): value for name, value in given.items()}
    try:
        spec = msgspec.convert({"kind": kind} | fields, FleetSpec, strict=False)
    except msgspec.ValidationError as error:
        message, _, name = str(error).partition(" - at `$.")
        where = f"{name.rstrip('`')}: " if name else ""
        raise ConfigError(f"fleet: {where}{message}") from None
    _check(spec)
    return structs.replace(spec, times=times) if times is not None else spec


def _split(words: Sequence[str]) -> tuple[str, dict[str, str]]:
    """The kind, and the values by name."""
    given: dict[str, str] = {}
    kinds = []
    for word in words:
        name, equals, value = word.partition("=")
        name = name.replace("-", "_")
        if name in ("pods", "lambda"):
            kinds.append(name)
        if equals or name == "snapstart":
            given[name] = value or "true"
        elif name not in ("pods", "lambda"):
            raise ConfigError(f"fleet: {word!r} is not NAME=VALUE, pods or lambda")
    if len(kinds) != 1:
        raise ConfigError("fleet: no kind; start either with pods=N or with lambda")
    return kinds[0], given


def _check(spec: FleetSpec) -> None:
    for name in ("pods", "slots", "concurrency", "in_flight"):
        if getattr(spec, name) < 1:
            raise ConfigError(f"fleet: {name}: must be 1 or more")
    for name, (least, most) in _BOUNDS.items():
        if not least <= getattr(spec, name) <= most:
            raise ConfigError(f"fleet: {name}: must be from {least:g} to {most:g}")
    if spec.kind == "lambda" and spec.cpu not in (0, 1):
        raise ConfigError(
            "fleet: cpu: for lambda 0 (no limit) or 1 (by memory); set memory instead"
        )
    if spec.snapstart and (spec.provisioned or spec.in_flight > 1):
        raise ConfigError("fleet: snapstart: cannot be combined with provisioned or in-flight")
    if spec.store != "sqlite" and not _is_url(spec.store):
        raise ConfigError("fleet: store: is neither sqlite nor the URL of a DynamoDB")
    if spec.model and not _is_url(spec.model):
        raise ConfigError("fleet: model: is not an http or https URL")


def _is_url(text: str) -> bool:
    try:
        Endpoint.parse(text)
    except ValueError:
        return False
    return True
