"""What can be configured about a model."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from seawall.resilience.settings import ResilienceSettings

__all__ = ["ModelSettings"]


class ModelSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model endpoint. The secret comes from the environment or a file, never from here.

    connections: the most that are open to it at once, in one process. warm: how many of them are
    opened at start.
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
    fallbacks: tuple[str, ...] = ()
    resilience: ResilienceSettings = ResilienceSettings()
