"""From settings to models: the one place that chooses the adapter."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from seawall.budgets.quota import Quota
from seawall.errors import ConfigError
from seawall.models.port import Model
from seawall.models.resilient import ResilientModel
from seawall.models.settings import ModelSettings
from seawall.models.upstream import Upstream
from seawall.timers import TimingWheel
from seawall.transport.http_client import HttpClient

__all__ = ["open_models", "open_upstreams"]

_DEADLINE_TICK = 0.02

# On Bedrock only some models take marks for the prompt cache, and others refuse them:
# https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html
_CACHING_MAKERS = ("anthropic.", "amazon.nova")


def open_upstreams(
    settings: Mapping[str, ModelSettings],
    client: HttpClient,
    environment: Mapping[str, str] = os.environ,
    *,
    metered: Callable[[str, Model], Model] = lambda _, model: model,
    quotas: Mapping[str, Quota] = MappingProxyType({}),
) -> dict[str, Upstream]:
    """The endpoints by the names of their tables.

    metered: puts a meter around an adapter, so that every attempt is charged. quotas: by name.

    Raises:
        ConfigError: a secret that is named cannot be had.
    """
    wheel = TimingWheel(_DEADLINE_TICK)
    return {
        name: Upstream(
            name,
            metered(name, _open(name, each, client, environment)),
            each.resilience,
            max_concurrency=each.connections,
            wheel=wheel,
            quota=quotas.get(each.quota),
        )
        for name, each in settings.items()
    }


def open_models(
    settings: Mapping[str, ModelSettings], upstreams: Mapping[str, Upstream]
) -> dict[str, Model]:
    """The models that agents are given: each endpoint with its fallbacks."""
    return {
        name: ResilientModel((upstreams[name], *(upstreams[other] for other in each.fallbacks)))
        for name, each in settings.items()
    }


def _open(
    name: str, settings: ModelSettings, client: HttpClient, environment: Mapping[str, str]
) -> Model:
    # Each adapter is imported where it is configured: every start pays for what it imports.
    if settings.kind == "local":
        from seawall.models.local import open_local  # noqa: PLC0415

        return open_local(name, settings)
    secret = _secret(name, settings, environment)
    in_words = settings.output_schema == "instructions"
    if settings.kind == "bedrock":
        return _bedrock(name, settings, client, environment, secret)
    if settings.kind == "anthropic":
        from seawall.models.anthropic import AnthropicModel, AnthropicSettings  # noqa: PLC0415

        return AnthropicModel(
            name,
            AnthropicSettings(
                base_url=settings.base_url,
                model=settings.model,
                api_key=secret,
                cache=settings.prompt_cache or "prefix",
                schema_in_instructions=in_words,
                warm=settings.warm,
                thinking=settings.thinking,
            ),
            client,
        )
    if settings.kind == "responses":
        from seawall.models.responses import ResponsesModel, ResponsesSettings  # noqa: PLC0415

        return ResponsesModel(
            name,
            ResponsesSettings(
                base_url=settings.base_url,
                model=settings.model,
                api_key=secret,
                cache=settings.prompt_cache or "prefix",
                schema_in_instructions=in_words,
                warm=settings.warm,
            ),
            client,
        )
    from seawall.models.openai import OpenAIModel, OpenAISettings  # noqa: PLC0415

    return OpenAIModel(
        name,
        OpenAISettings(
            base_url=settings.base_url,
            model=settings.model,
            api_key=secret,
            length_field=settings.length_field,
            cache=settings.prompt_cache or "off",
            schema_in_instructions=in_words,
            warm=settings.warm,
        ),
        client,
    )


def _bedrock(
    name: str,
    settings: ModelSettings,
    client: HttpClient,
    environment: Mapping[str, str],
    secret: str,
) -> Model:
    from seawall.aws.credential_cache import CredentialCache  # noqa: PLC0415
    from seawall.aws.credential_chain import default_chain  # noqa: PLC0415
    from seawall.aws.credentials import CredentialsError  # noqa: PLC0415
    from seawall.aws.region import find_region  # noqa: PLC0415
    from seawall.models.bedrock import BedrockModel, BedrockSettings  # noqa: PLC0415

    try:
        region = find_region(environment, settings.region)
    except (ValueError, CredentialsError) as error:
        raise ConfigError(f"models.{name}.region: {error}") from error
    if not region:
        raise ConfigError(f"models.{name}.region: say which, here or as AWS_REGION")
    caches = any(maker in settings.model for maker in _CACHING_MAKERS)
    return BedrockModel(
        name,
        BedrockSettings(
            model=settings.model,
            region=region,
            base_url=settings.base_url,
            api_key=secret,
            cache=settings.prompt_cache or ("prefix" if caches else "off"),
            schema_in_instructions=settings.output_schema == "instructions",
            warm=settings.warm,
        ),
        client,
        None if secret else CredentialCache(default_chain(environment, client, region=region)),
    )


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
