"""What can be configured about a model."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from msgspec import Meta, Struct

from seawall.budgets.settings import PriceSettings
from seawall.resilience.settings import ResilienceSettings

__all__ = ["ModelSettings", "model_faults"]


class ModelSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model endpoint. The secret comes from the environment or a file, never from here.

    connections: the most that are open to it at once, in one process. warm: how many of them are
    opened at start. quota: the table of `[quotas]` that bounds it; empty for none. price: what it
    costs; None where that is not told.
    fallbacks: other models that are asked in its stead when it fails, in this order.
    """

    kind: Literal["openai"] = "openai"
    base_url: str
    model: str
    api_key_env: str = ""
    api_key_file: str = ""
    length_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    connections: int = 8_192
    warm: Annotated[int, Meta(ge=0, le=1_024)] = 2
    quota: str = ""
    price: PriceSettings | None = None
    fallbacks: tuple[str, ...] = ()
    resilience: ResilienceSettings = ResilienceSettings()


def model_faults(models: Mapping[str, ModelSettings]) -> Iterator[tuple[tuple[str, ...], str]]:
    """What does not agree: the keys that are wrong, and why."""
    for name, model in models.items():
        if name in model.fallbacks:
            yield ("models", name, "fallbacks"), "a model cannot replace itself"
