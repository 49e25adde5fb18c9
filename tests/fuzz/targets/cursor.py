"""Cursors: decoded to the position that they encode, or rejected with a named error."""

import msgspec

from seawall.errors import InvalidField
from seawall.storage.values import read_cursor, write_cursor
from tests.fuzz.targets import ensure

__all__ = ["SEEDS", "one_input"]

_KINDS = (int, str, tuple[float, str], tuple[str, int], list[str])


def one_input(data: bytes) -> None:
    """Pass the bytes as the cursor of each kind of list.

    Raises:
        AssertionError: a cursor was read as what it is not, or its refusal names no field.
        Exception: reading it failed in another way than by InvalidField.
    """
    cursor = data.decode("latin-1")
    for kind in _KINDS:
        try:
            position = read_cursor(cursor, kind)
        except InvalidField as refused:
            ensure(refused.field == "cursor", "the field is not named")
            continue
        written = write_cursor(position)
        assert read_cursor(written, kind) == position
        assert msgspec.convert(position, kind) == position


SEEDS: list[bytes] = [
    b"",
    b"zz",
    b"====",
    b"\xff",
    *(
        write_cursor(position).encode()
        for position in (
            0,
            2**63,
            -1,
            "ses_1",
            "\0",
            (1.5, "ses_1"),
            ("ses_1", 2**63),
            [],
            ["a"] * 9,
        )
    ),
]
