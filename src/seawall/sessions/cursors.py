"""Where a list goes on, as a text that clients pass back without reading it."""

import base64
from typing import Any

import msgspec

from seawall.errors import InvalidField

__all__ = ["read_cursor", "write_cursor"]


def write_cursor(place: object) -> str:
    """A place in a list as a cursor."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode()


def read_cursor(cursor: str, kind: Any) -> Any:  # noqa: ANN401 - of that kind
    """The place, of the type `kind`, that `write_cursor` was given.

    Raises:
        InvalidField: it is not such a cursor.
    """
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(cursor), type=kind)
    except (ValueError, msgspec.DecodeError) as error:
        raise InvalidField("This is not a cursor of this list.", field="cursor") from error
