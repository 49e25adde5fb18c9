"""Replaces models, store and identity of a configuration by those of a fleet."""

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from seawall.config import Settings, load_settings
from seawall.errors import ConfigError
from seawall.identity.settings import IdentitySettings, JwtSettings
from seawall.settings import SessionSettings

__all__ = ["fleet_overrides"]

_STORE_TOOLS = "examples.store.tools:open_store"
_SESSIONS = ("store", "path", "endpoint", "ca_file", "table", "region", "create_table")
# Address and credentials of a model, and settings of other kinds of models.
_DROPPED_KEYS = {
    *("kind", "base_url", "api_key_env", "api_key_file", "ca_file", "region", "thinking"),
    *("path", "context_tokens", "generations", "threads"),
}


def fleet_overrides(
    source: Path, *, folder: Path, model: str, sessions: SessionSettings, trusted: JwtSettings
) -> dict[str, str]:
    """The environment variables that replace them for servers of `source`.

    Args:
        source: The configuration.
        folder: For the database of the store example's tools.
        model: URL that replaces every model; it is called without a key. A model's name, limits,
            resilience and price stay.
        sessions: Where sessions are stored; other settings of sessions stay.
        trusted: Whose tokens are accepted; no other credentials are.

    Raises:
        ConfigError: The configuration is invalid, or a part of it cannot be replaced.
    """
    document = _document(source)
    found = {f"SESSIONS__{name}": _toml(getattr(sessions, name)) for name in _SESSIONS}
    found |= {
        "IDENTITY__ANONYMOUS": "false",
        "IDENTITY__API_KEYS": "[]",
    }
    for name, value in msgspec.structs.asdict(trusted).items():
        found[f"IDENTITY__JWT__{name.upper()}"] = _toml(value)
    for name, table in _tables(document, "models"):
        kept = {key: value for key, value in table.items() if key not in _DROPPED_KEYS}
        kept["model"] = kept.get("model") or "simulated"
        own = {"kind": "openai", "base_url": model}
        own |= {"api_key_env": "", "api_key_file": "", "ca_file": ""}
        variable = _variable(source, "models", name)
        found[variable] = _toml(kept | own)
        for key, value in own.items():  # the current environment may set these too
            found[f"{variable}__{key.upper()}"] = _toml(value)
    for name, table in _tables(document, "tools"):
        if table.get("factory") == _STORE_TOOLS:
            database = _toml(str(folder / "store.db"))
            found[_variable(source, "tools", name, "database")] = database
    variables = {f"SEAWALL_{name}": value for name, value in found.items()}
    _check(load_settings(source, os.environ | variables), model, sessions, trusted)
    return variables


def _document(source: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # reported when it is loaded as settings


def _tables(document: Mapping[str, Any], section: str) -> list[tuple[str, dict[str, Any]]]:
    named = document.get(section)
    if not isinstance(named, dict):
        return []
    return [(name, table) for name, table in named.items() if isinstance(table, dict)]


def _variable(source: Path, *path: str) -> str:
    """The variable that sets a key, without the prefix; see `seawall.config`."""
    variable = "__".join(path).upper()
    if tuple(variable.lower().split("__")) != path or not set(variable).isdisjoint("=\0"):
        raise ConfigError(
            f"{source}: {'.'.join(path)}: a fleet cannot replace it, because no environment "
            "variable can name it; use a name without capitals, __ and ="
        )
    return variable


def _check(settings: Settings, model: str, sessions: SessionSettings, trusted: JwtSettings) -> None:
    """Check that the result uses nothing but the fleet's own parts.

    Raises:
        ConfigError: The current environment overrides one of them.
    """
    wrong = [
        f"models.{name}"
        for name, each in settings.models.items()
        if (each.kind, each.base_url, each.api_key_env, each.api_key_file)
        != ("openai", model, "", "")
    ]
    wrong += [
        f"sessions.{name}"
        for name in _SESSIONS
        if getattr(settings.sessions, name) != getattr(sessions, name)
    ]
    if settings.identity != IdentitySettings(jwt=trusted):
        wrong.append("identity")
    if wrong:
        raise ConfigError(
            f"{wrong[0]}: a fleet cannot replace it, because an environment variable that "
            f"begins with SEAWALL_{wrong[0].replace('.', '__').upper()} sets it; unset it"
        )


def _toml(value: object) -> str:
    """A TOML value on one line."""
    match value:
        case bool():
            return "true" if value else "false"
        case dict():
            pairs = [f"{_toml(str(name))} = {_toml(each)}" for name, each in value.items()]
            return "{ " + ", ".join(pairs) + " }"
        case list() | tuple():
            return "[" + ", ".join(_toml(each) for each in value) + "]"
        case str():  # as in JSON, but TOML requires DEL to be escaped
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case _:  # numbers, and dates
            return str(value)
