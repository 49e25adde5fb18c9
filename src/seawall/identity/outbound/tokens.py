"""Cache of access tokens: one fetch for all callers of a key, renewed before they expire."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable

from msgspec import Struct

from seawall.identity.outbound.port import CredentialsUnavailable

__all__ = ["FetchToken", "Token", "TokenCache"]

_RENEW_SECONDS = 60.0  # before expiry, or a fifth of a token's life if that is less
_UNUSABLE_SECONDS = 5.0  # before expiry, or a twentieth: requests take time to arrive
_COOLDOWN_SECONDS = 2.0  # after a failure
_REJECTION_SECONDS = 10.0
_CLOSING_SECONDS = 1.0


class Token(Struct, frozen=True):
    """An access token.

    Attributes:
        value: The token.
        expires_at: Unix seconds.
    """

    value: str
    expires_at: float

    def __repr__(self) -> str:
        return "Token(...)"


FetchToken = Callable[[float], Awaitable[Token]]
"""Obtains a token by a deadline on the event loop's clock; raises CredentialsUnavailable."""


class _Entry:
    __slots__ = ("failure", "fresh_until", "rejected_at", "retry_at", "token", "usable_until")

    def __init__(self) -> None:
        self.token: Token | None = None
        self.fresh_until = self.usable_until = 0.0
        self.failure = ""
        self.retry_at = 0.0
        self.rejected_at = float("-inf")


class TokenCache:
    """The most recently used tokens, by key.

    A token is renewed in the background when little of its life is left; callers that find none
    that is usable wait for one fetch together. A fetch is a task of this cache: it goes on for a
    later call when the callers have given up, because a refresh token may be used up by it. A
    failure is remembered for two seconds.
    """

    def __init__(
        self,
        *,
        fetch_seconds: float,
        entries: int = 10_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Create an empty cache.

        Args:
            fetch_seconds: Time limit of one request to an authorization server.
            entries: Keys at most; beyond them the least recently used is dropped.
            clock: Unix seconds.
        """
        self._fetch_seconds = fetch_seconds
        self._most = entries
        self._clock = clock
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._flights: dict[Hashable, asyncio.Task[Token]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    async def get(self, key: Hashable, fetch: FetchToken, *, deadline: float) -> str:
        """A token that is usable.

        Args:
            key: Whose token, and for what.
            fetch: Obtains it, if it is not here or not for long any more.
            deadline: For this caller, on the event loop's clock.

        Raises:
            CredentialsUnavailable: There is none, or not in time.
        """
        now = self._clock()
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
            if entry.token is not None and now < entry.fresh_until:
                return entry.token.value
        usable = entry is not None and entry.token is not None and now < entry.usable_until
        flight = self._flights.get(key)
        if flight is None and (entry is None or now >= entry.retry_at):
            flight = self._start(key, fetch)
        if usable and entry is not None and entry.token is not None:
            return entry.token.value
        if flight is None:
            raise CredentialsUnavailable(entry.failure if entry is not None else "")
        return await _follow(flight, deadline)

    def reject(self, key: Hashable, value: str) -> bool:
        """Drop a token that an upstream has refused; whether another attempt makes sense.

        A second one that is refused within ten seconds stays: the next would be refused as well.

        Args:
            key: As for `get`.
            value: The refused token.
        """
        entry = self._entries.get(key)
        if entry is None or entry.token is None or entry.token.value != value:
            return True  # it is gone already
        now = self._clock()
        if now - entry.rejected_at < _REJECTION_SECONDS:
            return False
        entry.rejected_at = now
        entry.token = None
        return True

    async def close(self) -> None:
        """End all fetches, after a moment in which they may finish."""
        if tasks := list(self._flights.values()):
            await asyncio.wait(tasks, timeout=_CLOSING_SECONDS)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def _start(self, key: Hashable, fetch: FetchToken) -> "asyncio.Task[Token]":
        task = asyncio.create_task(self._run(key, fetch), name="seawall-outbound-token")
        task.add_done_callback(_retrieve)
        self._flights[key] = task
        return task

    async def _run(self, key: Hashable, fetch: FetchToken) -> Token:
        began = self._clock()
        try:
            token = await fetch(asyncio.get_running_loop().time() + self._fetch_seconds)
        except CredentialsUnavailable as error:
            self._fail(key, error.detail)
            raise
        else:
            self._accept(key, token, began)
            return token
        finally:
            del self._flights[key]

    def _entry(self, key: Hashable) -> _Entry:
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry()
            if len(self._entries) > self._most:
                self._entries.popitem(last=False)
        return entry

    def _accept(self, key: Hashable, token: Token, began: float) -> None:
        entry = self._entry(key)
        life = token.expires_at - began
        entry.token = token
        entry.fresh_until = token.expires_at - min(_RENEW_SECONDS, life / 5)
        entry.usable_until = token.expires_at - min(_UNUSABLE_SECONDS, life / 20)
        entry.failure, entry.retry_at = "", 0.0

    def _fail(self, key: Hashable, detail: str) -> None:
        entry = self._entry(key)
        entry.failure = detail
        entry.retry_at = self._clock() + _COOLDOWN_SECONDS


async def _follow(flight: "asyncio.Task[Token]", deadline: float) -> str:
    """Wait for a fetch, whatever becomes of it, until the deadline."""
    left = deadline - asyncio.get_running_loop().time()
    await asyncio.wait([flight], timeout=max(0.0, left))
    if not flight.done() or flight.cancelled():
        raise CredentialsUnavailable("no token was issued in time")
    failure = flight.exception()
    if isinstance(failure, CredentialsUnavailable):
        raise CredentialsUnavailable(failure.detail)  # a new one: several callers raise it
    return flight.result().value


def _retrieve(task: "asyncio.Task[Token]") -> None:
    """Mark an exception as seen: of a renewal in the background there is no other reader."""
    if not task.cancelled():
        task.exception()
