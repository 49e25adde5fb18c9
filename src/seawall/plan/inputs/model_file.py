"""The table `model` of a workload's TOML file, its presets, and the flags about the model."""

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec
from msgspec import Struct, structs

from seawall.errors import ConfigError
from seawall.plan.inputs.distributions import Distribution
from seawall.plan.inputs.model import Endpoint, ModelLimits, ModelUse
from seawall.plan.inputs.notation import parse_amount, parse_distribution, parse_seconds

__all__ = ["Preset", "model_from_flags", "model_of", "presets"]

_AMOUNTS = (
    "tokens_a_minute",
    "input_tokens_a_minute",
    "output_tokens_a_minute",
    "requests_a_minute",
)
_TIMES = ("backoff", "backoff_cap", "wait_seconds")


class Preset(Struct, frozen=True, kw_only=True):
    """Rules and default quotas of a model at a provider.

    Attributes:
        title: For readers.
        limits: Its rules and quotas.
        source: Where they are from.
        date: When that was read.
        uncertain: Fields that could not be verified with the provider.
    """

    title: str
    limits: ModelLimits
    source: str
    date: str
    uncertain: tuple[str, ...]


@cache
def presets() -> Mapping[str, Preset]:
    """The presets by name."""
    text = files("seawall.plan.inputs").joinpath("model_quotas.toml").read_text("utf-8")
    found = {}
    for name, table in tomllib.loads(text).items():
        about = {key: table.pop(key) for key in ("title", "source", "date")}
        uncertain = tuple(table.pop("uncertain"))
        limits = msgspec.convert(table, ModelLimits)
        found[name] = Preset(limits=limits, uncertain=uncertain, **about)
    return found


def model_of(table: dict[str, Any], base: ModelUse, sources: dict[str, str]) -> ModelUse:
    """How the model is used, from a table.

    Its keys are those of `ModelUse` and of `ModelLimits`, and `preset`, the name of one of
    `presets()`, whose values are overridden. `provisioned` and each of `fallbacks` are tables with
    keys of `ModelLimits`, `preset`, and for fallbacks `name` and `slower`.

    Args:
        table: Of the file.
        base: What is not in the table.
        sources: Of the workload's inputs; those of the table are added.

    Raises:
        ConfigError: A key or value is invalid; it is named.
    """
    limits, rest, source = _limits(table, "model")
    changes: dict[str, Any] = {}
    if limits is not None:
        changes["limits"] = limits
        sources["model.limits"] = source
        changes["name"] = str(table.get("preset", base.name))
    for name in ("input_tokens", "output_tokens"):
        if name in rest:
            changes[name] = _tokens(rest.pop(name), f"model.{name}")
            sources[f"model.{name}"] = "given"
    if "provisioned" in rest:
        changes["provisioned"] = _provisioned(rest.pop("provisioned"))
    if "fallbacks" in rest:
        changes["fallbacks"] = _fallbacks(rest.pop("fallbacks"))
    for key, value in rest.items():
        about = key if key == "max_tokens" else "on_refusal"
        sources[f"model.{about}"] = "given"
        changes[key] = _field(key, value)
    return structs.replace(base, **changes)


def _field(key: str, value: object) -> object:
    """The value of a field of `ModelUse`."""
    if key not in ModelUse.__struct_fields__:
        known = {*ModelUse.__struct_fields__, *ModelLimits.__struct_fields__, "preset"} - {"limits"}
        raise ConfigError(f"model.{key}: unknown; known: {', '.join(sorted(known))}")
    if key in _TIMES:
        return parse_seconds(str(value), f"model.{key}")
    if key == "max_tokens" and value == "none":
        return None
    return _converted(ModelUse, key, value, "model")


def model_from_flags(
    base: ModelUse,
    sources: dict[str, str],
    *,
    tokens_a_minute: str = "",
    requests_a_minute: str = "",
    max_tokens: str = "",
) -> ModelUse:
    """How the model is used, from flags; what is empty is taken from `base`.

    Args:
        base: What the flags do not say.
        sources: Of the workload's inputs; those of the flags are added.
        tokens_a_minute: Quota: `2M`.
        requests_a_minute: Quota: `1000`.
        max_tokens: Bound of a call's output; `none`: the model's own.

    Raises:
        ConfigError: A value is invalid; the flag is named.
    """
    model = base
    quotas = {}
    if tokens_a_minute:
        quotas["tokens_a_minute"] = parse_amount(tokens_a_minute, "--model-tpm")
    if requests_a_minute:
        quotas["requests_a_minute"] = parse_amount(requests_a_minute, "--model-rpm")
    if quotas:
        model = structs.replace(
            model, limits=structs.replace(model.limits or ModelLimits(), **quotas)
        )
        sources["model.limits"] = "given"
    if max_tokens:
        most = None
        if max_tokens.strip().lower() != "none":
            most = int(parse_amount(max_tokens, "--max-tokens"))
        model = structs.replace(model, max_tokens=most)
        sources["model.max_tokens"] = "given"
    return model


def _limits(table: dict[str, Any], where: str) -> tuple[ModelLimits | None, dict[str, Any], str]:
    """The limits of a table, None without any; its other keys; and the source of the limits."""
    rest = dict(table)
    base, source = None, "given"
    if "preset" in rest:
        name = str(rest.pop("preset"))
        if name not in presets():
            known = ", ".join(presets())
            raise ConfigError(f"{where}.preset: unknown {name!r}; known: {known}")
        preset = presets()[name]
        base = preset.limits
        source = f"{preset.title}, {preset.date}: {preset.source}"
        if preset.uncertain:
            source += f"; not verified: {', '.join(preset.uncertain)}"
    changes = {}
    for name in ModelLimits.__struct_fields__:
        if name not in rest:
            continue
        value = rest.pop(name)
        if name in _AMOUNTS and isinstance(value, str):
            value = parse_amount(value, f"{where}.{name}")
        changes[name] = _converted(ModelLimits, name, value, where)
    if base is None and not changes:
        return None, rest, source
    return structs.replace(base or ModelLimits(), **changes), rest, source


def _provisioned(given: object) -> ModelLimits:
    limits, rest, _ = _limits(_subtable(given, "model.provisioned"), "model.provisioned")
    _reject(rest, "model.provisioned")
    return limits or ModelLimits()


def _fallbacks(given: object) -> tuple[Endpoint, ...]:
    if not isinstance(given, list):
        raise ConfigError("model.fallbacks: is not a list of tables")
    return tuple(_fallback(each, at) for at, each in enumerate(given))


def _fallback(given: object, at: int) -> Endpoint:
    where = f"model.fallbacks.{at}"
    table = _subtable(given, where)
    limits, rest, _ = _limits(table, where)
    name = str(rest.pop("name", table.get("preset", f"fallback {at + 1}")))
    slower = _converted(Endpoint, "slower", rest.pop("slower", 1.0), where)
    _reject(rest, where)
    return Endpoint(name=name, limits=limits or ModelLimits(), slower=slower)


def _subtable(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: is not a table")
    return dict(value)


def _reject(rest: dict[str, Any], where: str) -> None:
    if rest:
        known = ", ".join(ModelLimits.__struct_fields__)
        raise ConfigError(f"{where}.{min(rest)}: unknown; known: preset, {known}")


def _converted(kind: type[Struct], name: str, value: object, where: str) -> Any:  # noqa: ANN401 - of the field's type
    hints = {each.name: each.type for each in structs.fields(kind)}
    try:
        return msgspec.convert(value, hints[name], strict=True)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}.{name}: {error}") from None


def _tokens(value: object, field: str) -> Distribution:
    """A number of tokens or its distribution: `1500`, `900..2000`, `p50 900 p99 6000`."""
    text = str(value).replace(",", "").replace("_", "")
    if re.search(r"[a-z]", re.sub(r"\b(p50|p99|exp)\b|e[+-]?\d+", "", text), re.IGNORECASE):
        raise ConfigError(f"{field}: {value!r} is not a number of tokens such as 1500 or 900..2000")
    return parse_distribution(text, field)
