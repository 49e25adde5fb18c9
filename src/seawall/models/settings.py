"""What can be configured about a model."""

from typing import Literal

from msgspec import Struct

from seawall.resilience.settings import ResilienceSettings

__all__ = ["ModelSettings"]


class ModelSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model endpoint. The secret comes from the environment or a file, never from here.

    connections: the most that are open to it at once, in one process.
    fallbacks: other models that are asked in its stead when it fails, in this order.
    """

    kind: Literal["openai"] = "openai"
    base_url: str
    model: str
    api_key_env: str = ""
    api_key_file: str = ""
    length_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    connections: int = 8_192
    fallbacks: tuple[str, ...] = ()
    resilience: ResilienceSettings = ResilienceSettings()
