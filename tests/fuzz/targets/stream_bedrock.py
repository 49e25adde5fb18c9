"""Streams for the reader of kind "bedrock": raw frames, and payloads in valid frames."""

from seawall.models.bedrock import BedrockReader
from tests.fuzz.streams import check_stream
from tests.models.wire import WIRES, Call, frame

__all__ = ["SEEDS", "one_input"]

_WIRE = WIRES[1]
_CALLS = [Call("a", "find", ('{"x"', ": 1}")), Call("b", "find", ('{"ha',))]
_KINDS = ("contentBlockStart", "contentBlockDelta", "messageStop", "metadata", "ofTomorrow")
_FRAMED = 0x80
SEEDS: list[bytes] = [
    b"\x00" + b"".join(_WIRE.answer(("Hi ", "there"), _CALLS)),
    b"\x09" + b"".join(_WIRE.answer(("Hi",), _CALLS, end="length")),
    b"\x3c" + _WIRE.error("throttlingException"),
    b'\x800{"start":{"toolUse":{"toolUseId":"a","name":"f"}}}\n1{"delta":{"toolUse":{"input":"{"}}}',
    b'\x811{"delta":{"text":"Hi"}}\n2{"stopReason":"max_tokens"}\n3{"usage":{"inputTokens":-1}}',
]


def one_input(data: bytes) -> None:
    """With the first bit set, each line is a payload: a digit for its kind, then its JSON.

    So what is behind the checksums is reached as well.
    """
    if data and data[0] & _FRAMED:
        lines = [line for line in data[1:].split(b"\n") if line]
        data = data[:1] + b"".join(
            frame(
                {":event-type": _KINDS[line[0] % len(_KINDS)], ":message-type": "event"}, line[1:]
            )
            for line in lines
        )
    check_stream(lambda: BedrockReader("fuzzed"), data)
