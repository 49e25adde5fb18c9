"""Bounded cache: by number and bytes, with expiry; evicts the least recently used. Pure."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["BoundedCache"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BoundedCache(Generic[K, V]):
    """At most `entries` values of at most `size` bytes together."""

    def __init__(self, entries: int, size: int) -> None:
        self._most_entries = entries
        self._most_bytes = size
        self._values: OrderedDict[K, tuple[V, int, float]] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: K, *, at: float) -> V | None:
        """The value, if it has not expired; it counts as used."""
        found = self._values.get(key)
        if found is None:
            return None
        value, _, until = found
        if at >= until:
            self.drop(key)
            return None
        self._values.move_to_end(key)
        return value

    def put(self, key: K, value: V, *, size: int, until: float) -> None:
        """Store a value of `size` bytes until a time; one that is too large is not stored."""
        self.drop(key)
        if size > self._most_bytes:
            return
        self._values[key] = (value, size, until)
        self.bytes += size
        while len(self._values) > self._most_entries or self.bytes > self._most_bytes:
            _, (_, gone, _) = self._values.popitem(last=False)
            self.bytes -= gone

    def drop(self, key: K) -> None:
        """Remove a value, if it is there."""
        found = self._values.pop(key, None)
        if found is not None:
            self.bytes -= found[1]

    def clear(self) -> None:
        """Remove all values."""
        self._values.clear()
        self.bytes = 0
