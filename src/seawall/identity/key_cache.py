"""Cache of the issuer's key set: single flight, refresh, and use of stale keys in an outage."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from seawall.identity.jwks import MAX_BYTES, SigningKey, parse_key_set

__all__ = ["CachedKeySet", "Fetch", "file_fetcher"]

Fetch = Callable[[str, float], Awaitable[bytes]]
"""Gets a URL by a deadline on the event loop's clock; raises unless the answer is complete."""

_FETCH_SECONDS = 4.0  # below the limit of authentication, so that the fetch ends first
_MAX_CANCELLED_FETCHES = 3

_log = logging.getLogger("seawall.identity")


def file_fetcher(path: str) -> Fetch:
    """Make a `Fetch` that reads a file, off the event loop."""

    def read() -> bytes:
        with Path(path).open("rb") as file:
            return file.read(MAX_BYTES + 1)

    async def fetch(_: str, __: float) -> bytes:
        return await asyncio.to_thread(read)

    return fetch


class CachedKeySet:
    """Keys by id. Fetched when first needed, when old, and when an unknown id is asked for.

    Concurrent lookups share one fetch, and fetches are at least `cooldown` apart, however many
    unknown ids are presented. Stale keys are used while another task fetches, and while the
    provider cannot be reached. Keys that the provider no longer lists are dropped with the next
    fetch.
    """

    def __init__(
        self,
        fetch: Fetch,
        url: str,
        *,
        max_age: float,
        max_stale: float,
        cooldown: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create an empty cache.

        Args:
            fetch: Called with `url`.
            url: Address of the key set.
            max_age: How long keys are fresh, in seconds.
            max_stale: How long they may be used beyond that, in seconds.
            cooldown: Seconds between the starts of two fetches.
            clock: Monotonic seconds.
        """
        self._fetch = fetch
        self._url = url
        self._max_age = max_age
        self._usable_age = max_age + max_stale
        self._cooldown = cooldown
        self._clock = clock
        self._keys: dict[str, SigningKey] = {}
        self._document = b""
        self._fetched_at = float("-inf")
        self._attempted_at = float("-inf")
        self._cancelled_fetches = 0
        self._fetching = asyncio.Lock()

    @property
    def keys(self) -> tuple[SigningKey, ...]:
        """All keys, fresh or stale."""
        return tuple(self._keys.values())

    def current(self, kid: str) -> SigningKey | None:
        """Return the key if it is known and fresh, without waiting."""
        age = self._clock() - self._fetched_at
        return self._keys.get(kid) if age < self._max_age else None

    async def find(self, kid: str) -> SigningKey | None:
        """Return the key, after a fetch where one is due; None if there is no such key.

        Raises:
            ConnectionError: The provider cannot be reached, and there are no usable keys.
        """
        if (key := self.current(kid)) is not None:
            return key
        asked_at = self._clock()
        old = self._keys.get(kid) if asked_at - self._fetched_at < self._usable_age else None
        if old is not None and (self._fetching.locked() or not self._may_fetch(asked_at)):
            return old
        await self._refresh(asked_at)
        if self._clock() - self._fetched_at >= self._usable_age:
            raise ConnectionError("the key set cannot be fetched")
        return self._keys.get(kid)

    def _may_fetch(self, now: float) -> bool:
        return now - self._attempted_at >= self._cooldown

    async def _refresh(self, asked_at: float) -> None:
        """Fetch once for all concurrent lookups.

        The task that has the lock fetches; if it is cancelled, the next one fetches instead,
        without the cooldown. That is allowed a few times in a row only: otherwise a client that
        connects and disconnects could trigger fetches without end.
        """
        async with self._fetching:
            now = self._clock()
            if self._fetched_at >= asked_at or not self._may_fetch(now):
                return
            self._attempted_at = now
            deadline = asyncio.get_running_loop().time() + _FETCH_SECONDS
            try:
                async with asyncio.timeout_at(deadline):
                    document = await self._fetch(self._url, deadline)
                self._accept(document)
            except asyncio.CancelledError:
                if self._cancelled_fetches < _MAX_CANCELLED_FETCHES:
                    self._cancelled_fetches += 1
                    self._attempted_at = float("-inf")
                raise
            except Exception as error:  # noqa: BLE001 - anything that a fetch raises
                kind = type(error).__name__  # some have no message
                _log.warning("the key set cannot be fetched: %s: %s", kind, error)
            self._cancelled_fetches = 0

    def _accept(self, document: bytes) -> None:
        if document != self._document:
            self._keys = parse_key_set(document)
            self._document = document
            if not self._keys:
                _log.warning("the key set has no key for RS256, ES256 or EdDSA")
        self._fetched_at = self._clock()
