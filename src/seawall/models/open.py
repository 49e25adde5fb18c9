"""From settings to models: the one place that chooses the adapter."""

import os
from collections.abc import Mapping
from pathlib import Path

from seawall.errors import ConfigError
from seawall.models.openai import OpenAIModel, OpenAISettings
from seawall.models.port import Model
from seawall.models.resilient import ResilientModel
from seawall.models.settings import ModelSettings
from seawall.models.upstream import Upstream
from seawall.transport.http_client import HttpClient
from seawall.transport.wheel import Wheel

__all__ = ["open_models", "open_upstreams"]

_DEADLINE_TICK = 0.02


def open_upstreams(
    settings: Mapping[str, ModelSettings],
    client: HttpClient,
    environment: Mapping[str, str] = os.environ,
) -> dict[str, Upstream]:
    """The endpoints by the names of their tables.

    Raises:
        ConfigError: a secret that is named cannot be had.
    """
    wheel = Wheel(_DEADLINE_TICK)
    return {
        name: Upstream(
            name,
            _open(name, each, client, environment),
            each.resilience,
            max_concurrency=each.connections,
            wheel=wheel,
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
    return OpenAIModel(
        name,
        OpenAISettings(
            base_url=settings.base_url,
            model=settings.model,
            api_key=_secret(name, settings, environment),
            length_field=settings.length_field,
            warm=settings.warm,
        ),
        client,
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
