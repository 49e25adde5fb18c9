"""Settings of models."""

from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Literal

from msgspec import Meta, Struct

from seawall.budgets.settings import PriceSettings
from seawall.resilience.settings import ResilienceSettings

__all__ = ["ModelSettings", "invalid_setting", "model_faults"]


class ModelSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of one model endpoint. Not every key applies to every kind: see `invalid_setting`.

    Attributes:
        kind: The API that the endpoint speaks.
        base_url: Empty for the provider's own.
        model: The provider's name of the model.
        region: AWS region; empty for that of the environment.
        api_key_env: Environment variable with the secret.
        api_key_file: File with the secret.
        length_field: The name under which the server accepts the limit on completion tokens.
        prompt_cache: None for the default of the kind.
        thinking: Empty for the model's default.
        output_schema: Send the output schema in the provider's field, or in the instructions.
        max_connections: Open at once at most, in one process.
        warm_connections: Connections opened at start.
        quota: Name of the quota of its account; empty for none.
        price: None for none.
        path: File with the weights; empty for those of the installed package.
        context_tokens: Context of one generation.
        generations: At once; others wait.
        threads: 0 for one per processor.
        fallbacks: Models that are called when it fails, in this order.
        resilience: Timeouts, retries, circuit breaker.
    """

    kind: Literal["openai", "responses", "anthropic", "bedrock", "local"] = "openai"
    base_url: str = ""
    model: str = ""
    region: str = ""
    api_key_env: str = ""
    api_key_file: str = ""
    length_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    prompt_cache: Literal["off", "prefix", "conversation"] | None = None
    thinking: Literal["", "adaptive", "between_tools", "disabled"] = ""
    output_schema: Literal["provider", "instructions"] = "provider"
    max_connections: int = 8_192
    warm_connections: Annotated[int, Meta(ge=0, le=1_024)] = 2
    quota: str = ""
    price: PriceSettings | None = None
    path: str = ""
    context_tokens: Annotated[int, Meta(ge=256, le=1 << 20)] = 4_096
    generations: Annotated[int, Meta(ge=1, le=64)] = 2
    threads: Annotated[int, Meta(ge=0, le=256)] = 0
    fallbacks: tuple[str, ...] = ()
    resilience: ResilienceSettings = ResilienceSettings()


def model_faults(models: Mapping[str, ModelSettings]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the keys that contradict each other, and why."""
    for name, model in models.items():
        if name in model.fallbacks:
            yield ("models", name, "fallbacks"), "a model cannot be its own fallback"


_HTTP = frozenset({"openai", "responses", "anthropic", "bedrock"})
_LOCAL = frozenset({"local"})
_KINDS_OF_KEY = {
    "base_url": _HTTP,
    "model": _HTTP,
    "api_key_env": _HTTP,
    "api_key_file": _HTTP,
    "prompt_cache": _HTTP,
    "max_connections": _HTTP,
    "warm_connections": _HTTP,
    "length_field": frozenset({"openai"}),
    "thinking": frozenset({"anthropic"}),
    "region": frozenset({"bedrock"}),
    "path": _LOCAL,
    "context_tokens": _LOCAL,
    "generations": _LOCAL,
    "threads": _LOCAL,
}
_REQUIRED = {
    "openai": ("base_url", "model"),
    "responses": ("model",),
    "anthropic": ("model",),
    "bedrock": ("model",),
    "local": (),
}


def invalid_setting(settings: ModelSettings, given: Collection[str]) -> tuple[str, str] | None:
    """Return the first key that is invalid for the kind, and why; None if all are valid.

    Args:
        settings: Of the model.
        given: The keys that the configuration contains.
    """
    for key in given:
        kinds = _KINDS_OF_KEY.get(key)
        if kinds is not None and settings.kind not in kinds:
            listed = ", ".join(sorted(kinds))
            return key, f'does not apply to a model of kind "{settings.kind}", only to: {listed}'
    for key in _REQUIRED[settings.kind]:
        if not getattr(settings, key):
            return key, f'must be given for a model of kind "{settings.kind}"'
    if settings.base_url and (fault := _fault_of_url(settings.base_url)):
        return "base_url", fault
    if settings.api_key_env and settings.api_key_file:
        return "api_key_file", "api_key_env is set already"
    return None


def _fault_of_url(url: str) -> str:
    from seawall.transport.http_client import Endpoint  # noqa: PLC0415 - only where one is given

    try:
        Endpoint.parse(url)
    except ValueError as error:
        return str(error)
    return ""
