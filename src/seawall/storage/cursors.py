"""Where a list goes on, as a text that clients pass back without reading it."""

import base64
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from seawall.errors import InvalidField

__all__ = ["NUMBER", "read_cursor", "write_cursor"]

NUMBER = Annotated[int, Meta(ge=1, le=1 << 53)]
"""A turn's number, as the kind of a cursor; every database takes what is within these bounds."""


def write_cursor(position: object) -> str:
    """A place in a list as a cursor."""
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).decode()


def read_cursor(cursor: str, kind: Any) -> Any:  # noqa: ANN401 - of that kind
    """The place, of the type `kind`, that `write_cursor` was given.

    Raises:
        InvalidField: it is not such a cursor.
    """
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(cursor), type=kind)
    except (ValueError, msgspec.DecodeError) as error:
        raise InvalidField("This is not a cursor of this list.", field="cursor") from error
