"""Logins to the console: those that this worker has seen, and which of all were ended early.

A login is in its cookie only, so nothing lists all of them; each worker lists those that it has
seen. That one was ended is in the shared counters of the session store, so that every worker and
server refuses it: by its id, or by its subject with the time until which its logins have ended.
"""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from msgspec import Struct

from seawall.console.access import Login
from seawall.errors import StoreUnavailable
from seawall.storage.counters import Addition, Counters

__all__ = ["Logins", "SeenLogin", "SeenLogins"]

_MAX_SEEN = 1_000
_FRESH_SECONDS = 1.0
_STALE_SECONDS = 300.0  # for which an answer counts while the store gives none
_DAY = 86_400
_LONGEST = 7 * _DAY  # of a login; see `ConsoleSettings.session_seconds`


class SeenLogin(Struct, frozen=True):
    """A login that a worker has seen.

    Attributes:
        login: As in its cookie.
        seen_at: When it was last used, in Unix seconds.
    """

    login: Login
    seen_at: float


class SeenLogins(Struct, frozen=True):
    """Logins of one worker, those used last first."""

    logins: list[SeenLogin]


class _State(Struct):
    """What is known of a login: whether it was ended, and when that was asked."""

    seen: SeenLogin
    ended: bool = False
    asked_at: float = float("-inf")


class Logins:
    """The logins that this worker has seen."""

    def __init__(
        self,
        counters: Callable[[], Awaitable[Counters]],
        *,
        seconds: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Begin without any.

        Args:
            counters: The open counters of the session store.
            seconds: The longest that one question to them may take.
            clock: Unix seconds.
        """
        self._counters = counters
        self._seconds = seconds
        self._clock = clock
        self._known: OrderedDict[str, _State] = OrderedDict()
        self._forgotten = 0  # how often answers were

    async def is_valid(self, login: Login) -> bool:
        """Whether a login that has not expired was not ended either.

        An answer of the store counts for a second; while it gives none, for five minutes.

        Raises:
            StoreUnavailable: The store does not answer, and has not lately.
        """
        now = self._clock()
        state = self._known.pop(login.id, None) or _State(SeenLogin(login, now))
        state.seen = SeenLogin(login, now)
        self._known[login.id] = state
        if len(self._known) > _MAX_SEEN:
            self._known.popitem(last=False)
        if state.ended or now - state.asked_at < _FRESH_SECONDS:
            return not state.ended
        forgotten = self._forgotten
        try:
            async with asyncio.timeout(self._seconds):
                ended = await self._was_ended(login, now)
            if ended:  # else another answer, which came meanwhile, may say so
                state.ended = True
            if forgotten == self._forgotten:  # else the answer may be older than the end of a login
                state.asked_at = now
        except (StoreUnavailable, TimeoutError) as error:
            if now - state.asked_at > _STALE_SECONDS:
                raise StoreUnavailable("It is not known whether this login was ended.") from error
        return not state.ended

    def seen(self) -> SeenLogins:
        """The logins that this worker has seen, which have not ended as far as it knows."""
        now = self._clock()
        return SeenLogins(
            [
                each.seen
                for each in reversed(self._known.values())
                if not each.ended and each.seen.login.expires_at > now
            ]
        )

    def forget_answers(self) -> None:
        """Ask the store about each login again: one was ended."""
        self._forgotten += 1
        for each in self._known.values():
            each.asked_at = min(each.asked_at, self._clock() - _FRESH_SECONDS)

    async def end(self, login: Login) -> None:
        """End one login.

        Raises:
            StoreUnavailable: It cannot be recorded.
        """
        await self._record(
            Addition(
                counter=f"console-login:{login.id}",
                window="ended",
                amounts={"ended": 1},
                limits={"ended": 1},
                expires_at=login.expires_at + _DAY,
            )
        )

    async def end_all(self, tenant: str, subject: str) -> None:
        """End all logins of a subject until now.

        Raises:
            StoreUnavailable: It cannot be recorded.
        """
        now = self._clock()
        at = int(now * 1e3)
        day = int(now // _DAY)
        await self._record(
            Addition(
                counter=_name(tenant, subject),
                window=str(day),
                amounts={"until": at},
                limits={"until": at},  # so that the counter is the latest of all times
                expires_at=(day + 1) * _DAY + _LONGEST + _DAY,
            )
        )

    async def _record(self, addition: Addition) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                await (await self._counters()).add(addition)
        except TimeoutError as error:
            raise StoreUnavailable("That the login ends cannot be recorded.") from error
        self.forget_answers()

    async def _was_ended(self, login: Login, now: float) -> bool:
        counters = await self._counters()
        if await counters.read(f"console-login:{login.id}", "ended"):
            return True
        began_at = max(login.began_at, login.expires_at - _LONGEST)
        name = _name(login.tenant, login.subject)
        for day in range(int(began_at // _DAY), int(now // _DAY) + 1):
            until = (await counters.read(name, str(day))).get("until", 0)
            if began_at * 1e3 <= until:
                return True
        return False


def _name(tenant: str, subject: str) -> str:
    """The name of a subject's counter; names of subjects may be longer than those of counters."""
    digest = hashlib.sha256(f"{len(tenant)}:{tenant}{subject}".encode("utf-8", "replace"))
    return f"console-logins:{digest.hexdigest()}"
