"""What a turn holds of the store while it runs: getting it, keeping it, letting go of it."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import msgspec
from msgspec import Struct

from seawall.errors import DeadlineExceeded, KeyReused, Problem, SessionBusy, SessionConflict
from seawall.sessions.port import Begin, Hold, SessionStore, Snapshot
from seawall.sessions.settings import SessionSettings
from seawall.turn import SessionKey, TurnRequest

__all__ = ["Holding", "check_key", "hold_session"]

_FIRST_LOOK_SECONDS = 0.05
_LAST_LOOK_SECONDS = 0.5
_RELEASE_SECONDS = 3.0


class Holding(Struct, frozen=True):
    """A session, and perhaps an idempotency key, held in a turn's name; `lease` 0: nothing."""

    store: SessionStore
    begin: Begin
    lease: float

    @classmethod
    def nothing(cls, store: SessionStore, key: SessionKey, turn: str) -> "Holding":
        """Of a turn that opens a session whose name nobody knows yet."""
        return cls(store, Begin(key=key, turn=turn, turns=0, until=None), 0.0)

    @asynccontextmanager
    async def kept(self) -> AsyncGenerator[None, None]:
        """Hold on while the block runs; let go when it fails.

        The block ends what is held itself, by its commit.

        Raises:
            SessionConflict: the session or the key was lost to another turn.
        """
        if not self.lease:
            yield
            return
        renewing: asyncio.Task[None] | None = None
        try:
            async with asyncio.TaskGroup() as group:
                renewing = group.create_task(self._renew())
                yield
                renewing.cancel()
        except BaseExceptionGroup as failures:
            await self.release()
            raise failures.exceptions[0] from None
        except BaseException:
            await self.release()
            raise

    async def release(self) -> None:
        """Let others have it at once. Should that fail, they get it when the lease is over."""
        if not self.lease:
            return
        try:
            async with asyncio.timeout(_RELEASE_SECONDS):
                await self.store.release(self.begin)
        except (Problem, TimeoutError):
            return

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self.lease / 3)
            try:
                async with asyncio.timeout(self.lease / 3):
                    kept = await self.store.renew(_until(self.begin, self.lease))
            except (Problem, TimeoutError):
                continue  # there is another try in time; if not, the commit will tell
            if not kept:
                raise SessionConflict("Another turn has taken this session over.")


async def hold_session(
    store: SessionStore,
    key: SessionKey,
    request: TurnRequest,
    *,
    fingerprint: str | None,
    settings: SessionSettings,
    joinable: Callable[[str], bool],
    attempt_seconds: float,
    deadline: float,
) -> tuple[Snapshot, Holding]:
    """Begin the turn in the store; where another turn is in the way, wait as configured.

    A turn under the same key is joined where that can be done here: then it is in the snapshot's
    `running`, and this one holds nothing. Where it runs elsewhere, its answer is waited for.

    Raises:
        KeyReused: the key was used with another request.
        SessionBusy: another turn of the session is running, and was not done in time.
        DeadlineExceeded: a single look at the store took longer than `attempt_seconds`.
    """
    clock = asyncio.get_running_loop().time
    patience = settings.busy_seconds if settings.when_busy == "wait" else 0.0
    latest = min(clock() + patience, deadline)
    pause = _FIRST_LOOK_SECONDS
    begin = Begin(
        key=key,
        turn=request.id,
        turns=settings.history_turns,
        until=None,
        opens=request.opens,
        idempotency_key=request.idempotency_key,
        fingerprint=fingerprint,
    )
    holding = Holding(store, begin, settings.lease_seconds)
    nothing = Holding.nothing(store, key, request.id)
    try:
        while True:
            snapshot = await _look(store, _until(begin, settings.lease_seconds), attempt_seconds)
            running = snapshot.running
            for taken in (snapshot.replay, running):
                if taken is not None:
                    check_key(taken.fingerprint, fingerprint)
            if snapshot.replay or (running and joinable(running.turn)):
                return snapshot, nothing
            in_the_way = running or snapshot.busy
            if in_the_way is None or not settings.lease_seconds:
                return snapshot, holding
            if clock() + pause > (deadline if running else latest):
                raise _busy(in_the_way)
            # Not on the beat: two that wait for the same turn should not ask at the same time.
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(pause * 1.5, _LAST_LOOK_SECONDS)
    except BaseException:
        await holding.release()
        raise


async def _look(store: SessionStore, begin: Begin, seconds: float) -> Snapshot:
    try:
        async with asyncio.timeout(seconds):
            return await store.begin(begin)
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"The session store did not answer within {seconds:g} s.", field="session"
        ) from error


def check_key(first: str | None, now: str | None) -> None:
    """The same key must come with the same request.

    Raises:
        KeyReused: it does not.
    """
    if first != now:
        raise KeyReused(
            "This idempotency key was used before with another request; use a new key.",
            field="idempotency_key",
        )


def _until(begin: Begin, lease: float) -> Begin:
    return msgspec.structs.replace(begin, until=time.time() + lease if lease else None)


def _busy(hold: Hold) -> SessionBusy:
    left = max(1.0, hold.until - time.time())
    return SessionBusy(
        "Another turn of this session is running; send this one when that is done.",
        field="session",
        retry_after=round(min(left, 5.0), 1),
    )
