"""What can be configured about a model."""

from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Literal

from msgspec import Meta, Struct

from seawall.budgets.settings import PriceSettings
from seawall.resilience.settings import ResilienceSettings

__all__ = ["ModelSettings", "invalid_setting", "model_faults"]


class ModelSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model endpoint. The secret comes from the environment or a file, never from here.

    Not every key has a meaning for every kind: `invalid_setting` tells. base_url, region: empty for
    the provider's own, and that of the environment. prompt_cache: None for what the provider does
    well with. thinking: empty for what the model does by itself.
    output_schema: how a model is told what its output has to be.
    connections: the most that are open to it at once, in one process. warm: how many of them are
    opened at start. quota: the table of `[quotas]` that bounds it; empty for none. price: what it
    costs; None where that is not told. fallbacks: other models that are asked in its stead when it
    fails, in this order.
    path: the weights; empty for those of the installed package. context_tokens: of one generation.
    generations: at once; others wait. threads: 0 for one a processor.
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
    connections: int = 8_192
    warm: Annotated[int, Meta(ge=0, le=1_024)] = 2
    quota: str = ""
    price: PriceSettings | None = None
    path: str = ""
    context_tokens: Annotated[int, Meta(ge=256, le=1 << 20)] = 4_096
    generations: Annotated[int, Meta(ge=1, le=64)] = 2
    threads: Annotated[int, Meta(ge=0, le=256)] = 0
    fallbacks: tuple[str, ...] = ()
    resilience: ResilienceSettings = ResilienceSettings()


def model_faults(models: Mapping[str, ModelSettings]) -> Iterator[tuple[tuple[str, ...], str]]:
    """What does not agree: the keys that are wrong, and why."""
    for name, model in models.items():
        if name in model.fallbacks:
            yield ("models", name, "fallbacks"), "a model cannot replace itself"


_HTTP = frozenset({"openai", "responses", "anthropic", "bedrock"})
_LOCAL = frozenset({"local"})
_MEANT_FOR = {
    "base_url": _HTTP,
    "model": _HTTP,
    "api_key_env": _HTTP,
    "api_key_file": _HTTP,
    "prompt_cache": _HTTP,
    "connections": _HTTP,
    "warm": _HTTP,
    "length_field": frozenset({"openai"}),
    "thinking": frozenset({"anthropic"}),
    "region": frozenset({"bedrock"}),
    "path": _LOCAL,
    "context_tokens": _LOCAL,
    "generations": _LOCAL,
    "threads": _LOCAL,
}
_NEEDED = {
    "openai": ("base_url", "model"),
    "responses": ("model",),
    "anthropic": ("model",),
    "bedrock": ("model",),
    "local": (),
}


def invalid_setting(settings: ModelSettings, given: Collection[str]) -> tuple[str, str] | None:
    """The first key that is wrong for the kind, and what is wrong with it; None if all is well.

    given: the keys that are there.
    """
    for key in given:
        kinds = _MEANT_FOR.get(key)
        if kinds is not None and settings.kind not in kinds:
            listed = ", ".join(sorted(kinds))
            return key, f'means nothing to a model of kind "{settings.kind}", only to: {listed}'
    for key in _NEEDED[settings.kind]:
        if not getattr(settings, key):
            return key, f'must be given for a model of kind "{settings.kind}"'
    if settings.api_key_env and settings.api_key_file:
        return "api_key_file", "there is api_key_env already"
    return None
