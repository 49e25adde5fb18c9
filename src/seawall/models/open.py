"""Opening of models from their settings: chooses the adapter of each."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from seawall.errors import ConfigError
from seawall.models import Model
from seawall.models.resilient import ResilientModel
from seawall.models.upstream import Upstream
from seawall.settings import ModelSettings
from seawall.timers import TimingWheel
from seawall.transport.http_client import HttpClient

if TYPE_CHECKING:
    from seawall.budgets.quota import Quota

__all__ = ["open_models", "open_upstreams"]

_DEADLINE_TICK = 0.05

# On Bedrock only some models accept marks for the prompt cache; others refuse them:
# https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html
_CACHING_MAKERS = ("anthropic.", "amazon.nova")


def open_upstreams(
    settings: Mapping[str, ModelSettings],
    client: HttpClient,
    environment: Mapping[str, str] = os.environ,
    *,
    metered: Callable[[str, Model], Model] = lambda _, model: model,
    quotas: "Mapping[str, Quota]" = MappingProxyType({}),
) -> dict[str, Upstream]:
    """Open the endpoints of all models.

    Args:
        settings: Of the models, by name.
        client: Owns the connections.
        environment: Environment variables, for secrets and AWS.
        metered: Wraps an adapter in a meter, so that every attempt is charged.
        quotas: Of accounts, by name.

    Returns:
        The endpoints by the names of their models.

    Raises:
        ConfigError: A secret or a region is missing.
    """
    wheel = TimingWheel(_DEADLINE_TICK, measures_lag=True)
    upstreams = {}
    for name, each in settings.items():
        adapter, quota = _open(name, each, client, environment), quotas.get(each.quota)
        if quota is not None:
            from seawall.models.rate_limits import observe_rate_limits  # noqa: PLC0415 - with quotas

            observe_rate_limits(adapter, quota)
        upstreams[name] = Upstream(
            name,
            metered(name, adapter),
            each.resilience,
            max_concurrency=each.max_connections,
            wheel=wheel,
            quota=quota,
        )
    return upstreams


def open_models(
    settings: Mapping[str, ModelSettings], upstreams: Mapping[str, Upstream]
) -> dict[str, ResilientModel]:
    """Return the models for agents, by name: each endpoint with its fallbacks."""
    return {
        name: ResilientModel((upstreams[name], *(upstreams[other] for other in each.fallbacks)))
        for name, each in settings.items()
    }


def _open(
    name: str, settings: ModelSettings, client: HttpClient, environment: Mapping[str, str]
) -> Model:
    # Each adapter is imported where it is configured: a cold start pays for every module.
    if settings.kind == "local":
        from seawall.models.local import open_local  # noqa: PLC0415

        return open_local(name, settings)
    common: dict[str, Any] = {
        "base_url": settings.base_url,
        "model": settings.model,
        "api_key": _secret(name, settings, environment),
        "schema_in_instructions": settings.output_schema == "instructions",
        "warm": settings.warm_connections,
        "vision": settings.vision,
        "documents": settings.documents,
    }
    if settings.prompt_cache:
        common["cache"] = settings.prompt_cache
    if settings.kind == "bedrock":
        return _bedrock(name, settings, client, environment, common)
    if settings.kind == "anthropic":
        from seawall.models.anthropic import AnthropicModel, AnthropicSettings  # noqa: PLC0415

        thinking = settings.thinking
        return AnthropicModel(name, AnthropicSettings(**common, thinking=thinking), client)
    if settings.kind == "responses":
        from seawall.models.responses import ResponsesModel, ResponsesSettings  # noqa: PLC0415

        return ResponsesModel(name, ResponsesSettings(**common), client)
    from seawall.models.openai import OpenAIModel, OpenAISettings  # noqa: PLC0415

    length_field = settings.length_field
    return OpenAIModel(name, OpenAISettings(**common, length_field=length_field), client)


def _bedrock(
    name: str,
    settings: ModelSettings,
    client: HttpClient,
    environment: Mapping[str, str],
    common: dict[str, Any],
) -> Model:
    from seawall.aws import CredentialsError, find_region  # noqa: PLC0415
    from seawall.aws.credential_cache import CredentialCache, default_chain  # noqa: PLC0415
    from seawall.models.bedrock import BedrockModel, BedrockSettings  # noqa: PLC0415

    try:
        region = find_region(environment, settings.region)
    except (ValueError, CredentialsError) as error:
        raise ConfigError(f"models.{name}.region: {error}") from error
    if not region:
        raise ConfigError(f"models.{name}.region: set it here or as AWS_REGION")
    if any(maker in settings.model for maker in _CACHING_MAKERS):
        common = {"cache": "prefix", **common}
    credentials = None
    if not common["api_key"]:
        credentials = CredentialCache(default_chain(environment, client, region=region))
    return BedrockModel(name, BedrockSettings(**common, region=region), client, credentials)


def _secret(name: str, settings: ModelSettings, environment: Mapping[str, str]) -> str:
    if settings.api_key_env:
        secret = environment.get(settings.api_key_env, "")
        if not secret:
            raise ConfigError(f"models.{name}: the variable {settings.api_key_env} is not set")
        return secret
    if settings.api_key_file:
        try:
            return Path(settings.api_key_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"models.{name}: {settings.api_key_file}: {error}") from error
    return ""
