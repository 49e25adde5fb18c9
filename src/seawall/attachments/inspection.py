"""The protocol of the process that checks files; it imports little, so the process starts soon."""

from msgspec import Struct

__all__ = ["Inspected", "Inspection"]


class Inspection(Struct, frozen=True):
    """What the child is asked, before the bytes of the file."""

    media_type: str
    pixels: int
    side: int
    pages: int
    seconds: float
    size: int


class Inspected(Struct, frozen=True):
    """What it answers, before the bytes of an image that was encoded anew.

    Attributes:
        fault: Why the file is refused, for the client; empty if it is accepted.
        media_type: Of the bytes that follow.
        tokens: As of `Checked`.
        size: How many bytes follow; 0 if the file stays as it is.
        denied: A module or file that the decoder asked for and did not get.
    """

    fault: str = ""
    media_type: str = ""
    tokens: int = 0
    size: int = 0
    denied: str = ""
