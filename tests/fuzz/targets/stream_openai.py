"""Streams for the reader of kind "openai"."""

from seawall.models.openai import OpenAIReader
from tests.fuzz.streams import check_stream
from tests.models.wire import WIRES, Call

__all__ = ["SEEDS", "one_input"]

_WIRE = WIRES[2]
_CALLS = [Call("a", "find", ('{"x"', ": 1}")), Call("b", "find", ('{"ha',))]
SEEDS: list[bytes] = [
    b"\x00" + b"".join(_WIRE.answer(("Hi ", "there"), _CALLS)),
    b"\x09" + b"".join(_WIRE.answer(("Hi",), _CALLS, end="length")),
    b"\x07" + b"".join([*_WIRE.noise(), *_WIRE.answer((), _CALLS[:1]), _WIRE.broken()]),
    b"\x3c" + _WIRE.error("rate_limit_exceeded"),
]


def one_input(data: bytes) -> None:
    """See `check_stream`."""
    check_stream(lambda: OpenAIReader("fuzzed"), data)
