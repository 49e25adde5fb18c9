"""Invariants of every reader of a model's stream, for any input."""

import json
import logging
from collections.abc import Callable

from seawall.errors import UpstreamFailed
from seawall.models.assembly import Reader
from seawall.transport.connection import TransportError

__all__ = ["check_stream"]

_MAX_ANSWER_CHARACTERS = 1 << 20
_MAX_CALLS = 64
_TOKENS = 1 << 42

_log = logging.getLogger("seawall.models")


def check_stream(reader: Callable[[], Reader], data: bytes) -> None:
    """Read a stream, whole and in pieces; the first byte determines the pieces.

    Raises:
        AssertionError: An invariant is violated.
    """
    if not data:
        return
    step = 1 + data[0] % 61
    pieces = [data[at : at + step] for at in range(1, len(data), step)]
    was, _log.disabled = _log.disabled, True  # a line for each input would be most of the time
    try:
        _read(reader(), [data[1:]])
        _read(reader(), pieces)
    finally:
        _log.disabled = was


def _read(reader: Reader, pieces: list[bytes]) -> None:
    written = 0
    try:
        for piece in pieces:
            text = reader.assembly.begin(reader.feed(piece))
            text.encode()  # it can be sent on
            written += len(text)
            progress = reader.assembly.take_progress()
            if progress is not None:
                progress.reasoning.encode()
                written += len(progress.reasoning)
            assert written <= _MAX_ANSWER_CHARACTERS
            if reader.assembly.done:
                break
        asked, finish = reader.end()
    except (UpstreamFailed, TransportError):
        return
    used = finish.usage
    counts = (
        *(used.prompt_tokens, used.completion_tokens),
        *(used.cached_prompt_tokens, used.cache_write_tokens),
    )
    assert all(0 <= each <= _TOKENS for each in counts)
    if asked is None:
        return
    assert 0 < len(asked.calls) + len(asked.unfinished) <= _MAX_CALLS
    assert finish.reason != "content_filter"
    ids = [each.id for each in asked.calls + asked.unfinished]
    assert len(set(ids)) == len(ids)
    for call in asked.calls:
        json.loads(call.arguments)  # never half of it
        (call.id + call.name + call.arguments + call.extra).encode()
        assert call.name
        assert call.id
