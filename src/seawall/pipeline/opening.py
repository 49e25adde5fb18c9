"""The opening of a turn: the session, while the intent is detected.

Authentication gates every effect: it came before admission, so that nothing here begins for
somebody unknown.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import TypeVar

import msgspec
from msgspec import Struct

from seawall.errors import Problem, SessionNotFound
from seawall.intents.cascade import IntentDetector
from seawall.intents.definition import Detection
from seawall.pipeline.holding import Holding, hold_session
from seawall.pipeline.stages import Stage, StageLimits, StageTimings
from seawall.sessions.port import Pending, SessionStore, Snapshot
from seawall.sessions.settings import SessionSettings
from seawall.turn import Principal, SessionKey, TurnRequest

__all__ = ["Opened", "Opening"]

T = TypeVar("T")


class Opened(Struct, frozen=True):
    """What the three stages found out, and what the turn holds of the store."""

    principal: Principal
    key: SessionKey
    snapshot: Snapshot
    detection: Detection
    holding: Holding


class Opening(Struct, frozen=True, kw_only=True):
    """The opening stages of one turn.

    fingerprint: digest of the request, where it has an idempotency key. joinable: whether a turn
    that runs can be followed here. store_in_doubt: the store failed lately, so ask it before
    anything is spent, even where nothing is to be loaded. deadline: of the turn, in seconds on
    the event loop's clock. resumed: the promise, made before, that this turn keeps.
    """

    request: TurnRequest
    principal: Principal
    fingerprint: str | None
    joinable: Callable[[str], bool]
    store_in_doubt: bool
    store: SessionStore
    detector: IntentDetector
    sessions: SessionSettings
    limits: StageLimits
    deadline: float
    timings: StageTimings
    resumed: Pending | None = None

    async def run(self) -> Opened:
        """Run the stages.

        Raises:
            SessionNotFound: the session asked for is not this principal's.
            SessionBusy: another turn of it is running, and was not done in time.
            Problem: whatever else a stage could not do.
        """
        if not self._stored and not self.detector.may_wait:
            # A new session, and an intent found on the spot: there is nothing to wait for.
            return self._opened(Snapshot(None), self._nothing(), self._detect_locally())
        holding: asyncio.Task[tuple[Snapshot, Holding] | Problem] | None = None
        try:
            async with asyncio.TaskGroup() as group:
                holding = group.create_task(_held(self._hold()))
                detecting = group.create_task(_held(self._detect()))
            snapshot, held = _released(holding.result())
            return self._opened(snapshot, held, _released(detecting.result()))
        except BaseException as failure:
            first = failure.exceptions[0] if isinstance(failure, BaseExceptionGroup) else failure
            await _let_go(holding, first)
            if first is not failure:
                raise first from None
            raise

    async def again(self, opened: Opened) -> Opened:
        """Look at the store once more: the turn that was in the way has ended meanwhile.

        Raises:
            Problem: what the session's stage could not do.
        """
        snapshot, holding = await self._hold()
        try:
            return self._opened(snapshot, holding, opened.detection)
        except BaseException:
            await holding.release()
            raise

    @property
    def _stored(self) -> bool:
        """Whether the store has to be asked."""
        request = self.request
        asked = not request.opens or bool(request.idempotency_key) or request.background
        return asked or self.store_in_doubt

    async def _hold(self) -> tuple[Snapshot, Holding]:
        if not self._stored:
            return Snapshot(None), self._nothing()
        # A turn under the same key may take as long as a turn may.
        keyed = self.request.idempotency_key is not None
        patience = self.limits.turn if keyed else self.sessions.busy_seconds
        limit = self.limits.session + patience
        async with Stage("session", limit, self.deadline, self.timings):
            return await hold_session(
                self.store,
                self._key(),
                self.request,
                fingerprint=self.fingerprint,
                settings=self.sessions,
                joinable=self.joinable,
                attempt_seconds=self.limits.session,
                deadline=self.deadline,
                pending=self.resumed or self._promise(),
            )

    def _promise(self) -> Pending | None:
        if not (self.request.background and self.sessions.lease_seconds):
            return None
        now = time.time()
        return Pending(
            key=self._key(),
            request=msgspec.structs.replace(self.request, deadline=None),
            accepted_at=now,
            ends_at=now + self.sessions.background_seconds,
        )

    def _nothing(self) -> Holding:
        return Holding.nothing(self.store, self._key(), self.request.id)

    def _key(self) -> SessionKey:
        return SessionKey(self.principal.tenant, self.principal.subject, self.request.session)

    def _opened(self, snapshot: Snapshot, holding: Holding, detection: Detection) -> Opened:
        answered = snapshot.replay or snapshot.running
        if not self.request.opens and snapshot.session is None and answered is None:
            raise SessionNotFound
        return Opened(self.principal, self._key(), snapshot, detection, holding)

    async def _detect(self) -> Detection:
        if not self.detector.may_wait:
            return self._detect_locally()
        async with Stage("intent", self.limits.intent, self.deadline, self.timings):
            return await self.detector.detect(self.request.text, deadline=self.deadline)

    def _detect_locally(self) -> Detection:
        clock = asyncio.get_running_loop().time
        began = clock()
        detection = self.detector.detect_locally(self.request.text)
        self.timings.record("intent", clock() - began)
        return detection


async def _let_go(
    holding: asyncio.Task[tuple[Snapshot, Holding] | Problem] | None, failure: BaseException
) -> None:
    """The opening failed, but the session may be held already."""
    if holding is None or holding.cancelled() or not holding.done() or holding.exception():
        return
    loaded = holding.result()
    if not isinstance(loaded, Problem):
        await loaded[1].end(failure, promised=False)


async def _held(stage: Coroutine[None, None, T]) -> T | Problem:
    """The stage's failure as a value, to be looked at when all is known."""
    try:
        return await stage
    except Problem as problem:
        return problem


def _released(outcome: T | Problem) -> T:
    if isinstance(outcome, Problem):
        raise outcome
    return outcome
