"""From settings to an open session store: the one place that chooses the adapter."""

from pathlib import Path

import msgspec

from seawall.errors import ConfigError
from seawall.sessions.port import SessionStore
from seawall.sessions.settings import SessionSettings
from seawall.sessions.sqlite import SqliteStore

__all__ = ["check_store", "name_store", "open_store", "settings_of"]

_NAMED_BY = {"sqlite": "path", "dynamodb": "table"}


async def open_store(settings: SessionSettings) -> SessionStore:
    """The store that the settings name, open; what is missing of it is made.

    Raises:
        ConfigError: it cannot be had.
        StoreUnavailable: it cannot be reached.
    """
    store = SqliteStore(settings.path)
    await store.open()
    return store


def check_store(settings: SessionSettings) -> None:
    """For those who only want to look: nothing is to be made by that.

    Raises:
        ConfigError: there is no such store yet.
    """
    if not Path(settings.path).is_file():
        raise ConfigError(f"sessions.path: there is no database {settings.path}")


def name_store(settings: SessionSettings) -> str:
    """Which store the settings name, in one text: the same text, the same store."""
    return f"sqlite:{Path(settings.path).resolve()}"


def settings_of(place: str, base: SessionSettings) -> SessionSettings:
    """The settings of a store named as KIND or KIND:NAME; `base` has what that leaves open.

    Raises:
        ConfigError: there is no such kind of store.
    """
    kind, colon, name = place.partition(":")
    changed: dict[str, object] = {"store": kind}
    if colon and kind in _NAMED_BY:
        changed[_NAMED_BY[kind]] = name
    try:
        return msgspec.convert(msgspec.structs.asdict(base) | changed, SessionSettings)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"{place!r} names no store: it must be sqlite, sqlite:PATH, or a configuration "
            "file that ends in .toml"
        ) from error
