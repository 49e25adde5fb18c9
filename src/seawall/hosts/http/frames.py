"""Events as server-sent events, each with its position as its id."""

from seawall.events import Event
from seawall.hosts.http.exchange import encode
from seawall.pipeline.replay import width

__all__ = ["EVENT_STREAM", "EventFrames"]

EVENT_STREAM = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # or nginx would hold the first token back
]

_names: dict[type[Event], bytes] = {
    kind: str(kind.__struct_config__.tag).encode() for kind in Event.__args__
}


class EventFrames:
    """The frames of one stream; `position` is where it begins."""

    __slots__ = ("_position",)

    def __init__(self, position: int = 0) -> None:
        self._position = position

    def at(self, position: int, event: Event) -> bytes:
        """The frame of an event whose position is known."""
        self._position = position - width(event)
        return self.frame(event)

    def frame(self, event: Event) -> bytes:
        """The next frame."""
        self._position += width(event)
        name = _names[type(event)]
        return b"event: %b\nid: %d\ndata: %b\n\n" % (name, self._position, encode(event))
