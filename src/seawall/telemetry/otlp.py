"""OTLP encoding as protocol buffers, by hand: some eighty lines instead of a library's import.

Messages and field numbers: https://github.com/open-telemetry/opentelemetry-proto, v1;
encoding: https://protobuf.dev/programming-guides/encoding/. The tests decode it with the
generated classes of `opentelemetry-proto`.
"""

import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache

from seawall.spans import Attribute
from seawall.telemetry.histograms import Distribution
from seawall.telemetry.recorder import RecordedSpan

__all__ = ["encode_metrics", "encode_spans"]

_SCOPE = "seawall"
# The version of the semantic conventions.
_SCHEMA = "https://opentelemetry.io/schemas/1.41.0"
_KINDS = {"internal": 1, "server": 2, "client": 3}
_STATUS_ERROR = 2
_CUMULATIVE = 2
# A caller that disconnected, or a hedge that lost, is no error.
_NO_ERROR = frozenset({"cancelled"})


def encode_spans(
    spans: Iterable[RecordedSpan], resource: Mapping[str, Attribute], version: str
) -> bytes:
    """Encode an ExportTraceServiceRequest."""
    scope_spans = _field(1, _scope(version)) + b"".join(_field(2, _span(each)) for each in spans)
    scope_spans += _text(3, _SCHEMA)
    return _field(1, _field(1, _attributes(1, resource)) + _field(2, scope_spans))


def encode_metrics(
    distributions: Iterable[Distribution], resource: Mapping[str, Attribute], version: str, now: int
) -> bytes:
    """Encode an ExportMetricsServiceRequest, cumulative; `now` in nanoseconds since 1970."""
    scope_metrics = _field(1, _scope(version))
    scope_metrics += b"".join(_field(2, _metric(each, now)) for each in distributions)
    scope_metrics += _text(3, _SCHEMA)
    return _field(1, _field(1, _attributes(1, resource)) + _field(2, scope_metrics))


def _span(span: RecordedSpan) -> bytes:
    parts = [
        _field(1, span.trace),
        _field(2, span.id),
        _field(4, span.parent) if span.parent else b"",
        _text(5, span.name),
        _number(6, _KINDS[span.kind]),
        struct.pack("<BQBQ", 0x39, span.began, 0x41, span.ended),  # 7, 8: fixed64
        _attributes(9, span.attributes),
    ]
    if span.error is not None and span.error not in _NO_ERROR:
        parts.append(_field(15, _text(2, span.error) + _number(3, _STATUS_ERROR)))
    return b"".join(parts)


def _metric(distribution: Distribution, now: int) -> bytes:
    points = b"".join(
        _field(
            1,
            struct.pack("<BQBQ", 0x11, distribution.began, 0x19, now)  # 2, 3: start, time
            + struct.pack("<BQBd", 0x21, sum(counted.buckets), 0x29, counted.total)  # 4, 5
            + _field(6, struct.pack(f"<{len(counted.buckets)}Q", *counted.buckets))
            + _field(7, struct.pack(f"<{len(distribution.bounds)}d", *distribution.bounds))
            + _attributes(9, dict(key)),
        )
        for key, counted in distribution.points.items()
    )
    histogram = points + _number(2, _CUMULATIVE)
    return (
        _text(1, distribution.name)
        + _text(2, distribution.description)
        + _text(3, distribution.unit)
        + _field(9, histogram)
    )


def _scope(version: str) -> bytes:
    return _text(1, _SCOPE) + _text(2, version)


def _attributes(field: int, attributes: Mapping[str, Attribute]) -> bytes:
    return b"".join(
        _field(field, _key(name) + _field(2, _any(value))) for name, value in attributes.items()
    )


@lru_cache(maxsize=256)
def _key(name: str) -> bytes:
    return _text(1, name)


def _any(value: Attribute) -> bytes:
    if isinstance(value, str):
        return _text(1, value)
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        return b"\x18" + _varint(value & 0xFFFF_FFFF_FFFF_FFFF)
    if isinstance(value, float):
        return b"\x21" + struct.pack("<d", value)
    return _field(5, b"".join(_field(1, _text(1, each)) for each in value))


def _text(field: int, text: str) -> bytes:
    return _field(field, text.encode("utf-8", "replace"))


def _field(field: int, data: bytes) -> bytes:
    """Encode a length-delimited field."""
    size = len(data)
    if size < 0x80:  # field numbers here are below 16: the tag is one byte
        return bytes((field << 3 | 2, size)) + data
    return bytes((field << 3 | 2,)) + _varint(size) + data


def _number(field: int, value: int) -> bytes:
    return bytes((field << 3,)) + _varint(value)


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)
