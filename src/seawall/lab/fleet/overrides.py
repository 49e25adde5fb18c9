"""A configuration whose model, store and identity are replaced by a fleet's own."""

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
from seawall.storage.settings import SessionSettings

__all__ = ["fleet_overrides"]

_STORE_TOOLS = "examples.store.tools:open_store"
_SESSIONS = ("store", "path", "endpoint", "table", "region", "create_table")
# Where a model is and who may ask it, and what means something to other kinds only.
_DROPPED_KEYS = {
    *("kind", "base_url", "api_key_env", "api_key_file", "region", "thinking"),
    *("path", "context_tokens", "generations", "threads"),
}


def fleet_overrides(
    source: Path, *, folder: Path, model: str, sessions: SessionSettings, trusted: JwtSettings
) -> dict[str, str]:
    """Variables of the environment that replace them, for all that serve `source`.

    folder: for what the store example's tools write. model: the URL that stands for every model;
    it is asked for chat completions, without a key. What else is set of a model stays: its name,
    limits, resilience, price. sessions: where they are kept; how long and the like stays as it is.

    Raises:
        ConfigError: the configuration is wrong, or something of it cannot be replaced.
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
        own = {"kind": "openai", "base_url": model, "api_key_env": "", "api_key_file": ""}
        variable = _variable(source, "models", name)
        found[variable] = _toml(kept | own)
        for key, value in own.items():  # where our environment sets just these, too
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
        return {}  # what is wrong, and where, is said when it is read as settings


def _tables(document: Mapping[str, Any], section: str) -> list[tuple[str, dict[str, Any]]]:
    named = document.get(section)
    if not isinstance(named, dict):
        return []
    return [(name, table) for name, table in named.items() if isinstance(table, dict)]


def _variable(source: Path, *path: str) -> str:
    """What sets that key, without the prefix; see `seawall.config`."""
    variable = "__".join(path).upper()
    if tuple(variable.lower().split("__")) != path or not set(variable).isdisjoint("=\0"):
        raise ConfigError(
            f"{source}: {'.'.join(path)}: a fleet cannot replace it by its own, as no variable of "
            "the environment can name it: let its name have no capitals, no __ and no ="
        )
    return variable


def _check(settings: Settings, model: str, sessions: SessionSettings, trusted: JwtSettings) -> None:
    """Nothing but the fleet's own is reached, whatever our environment sets besides.

    Raises:
        ConfigError: something else would be.
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
            f"{wrong[0]}: a fleet cannot replace it by its own, as a variable of the environment "
            f"that begins with SEAWALL_{wrong[0].replace('.', '__').upper()} sets it: unset that"
        )


def _toml(value: object) -> str:
    """A value of a TOML document, written on one line."""
    match value:
        case bool():
            return "true" if value else "false"
        case dict():
            pairs = [f"{_toml(str(name))} = {_toml(each)}" for name, each in value.items()]
            return "{ " + ", ".join(pairs) + " }"
        case list() | tuple():
            return "[" + ", ".join(_toml(each) for each in value) + "]"
        case str():  # JSON's escapes are TOML's, but for one character that TOML wants escaped
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case _:  # numbers, and dates
            return str(value)
