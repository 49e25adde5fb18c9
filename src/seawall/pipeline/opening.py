"""The opening of a turn: authenticate, then the session, while the intent is detected.

Authentication gates every effect. Where it needs no waiting, it is simply first. While it waits
for an identity provider, the text is classified locally, and thrown away if authentication says
no. What costs money, the model step of the intent cascade, waits for the yes, and so does the
session, which the turn then holds.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import TypeVar

import msgspec
from msgspec import Struct

from seawall.errors import Problem, SessionNotFound
from seawall.identity.port import Authenticator, Credential
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
    """The three stages of one turn.

    fingerprint: digest of the request, where it has an idempotency key. joinable: whether a turn
    that runs can be followed here. store_in_doubt: the store failed lately, so ask it before
    anything is spent, even where nothing is to be loaded. deadline: of the turn, in seconds on
    the event loop's clock. resumed: the promise, made before, that this turn keeps.
    """

    request: TurnRequest
    credential: Credential
    fingerprint: str | None
    joinable: Callable[[str], bool]
    store_in_doubt: bool
    authenticator: Authenticator
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
            Unauthenticated: before anything else could show.
            SessionNotFound: the session asked for is not this principal's.
            SessionBusy: another turn of it is running, and was not done in time.
            Problem: whatever else a stage could not do.
        """
        clock = asyncio.get_running_loop().time
        began = clock()
        principal = self.authenticator.known(self.credential)
        if principal is not None:
            self.timings.record("authenticate", clock() - began)
            if not self._stored and not self.detector.may_wait:
                # A new session, and an intent found on the spot: there is nothing to wait for.
                holding = self._nothing(principal)
                return self._opened(principal, Snapshot(None), holding, self._detect_locally())
        said_yes = asyncio.Event()
        entering: asyncio.Task[tuple[Principal, tuple[Snapshot, Holding] | Problem]] | None = None
        try:
            async with asyncio.TaskGroup() as group:
                entering = group.create_task(self._enter(principal, said_yes))
                detecting = group.create_task(_held(self._detect(said_yes)))
            principal, loaded = entering.result()
            snapshot, holding = _released(loaded)
            return self._opened(principal, snapshot, holding, _released(detecting.result()))
        except BaseException as failure:
            first = failure.exceptions[0] if isinstance(failure, BaseExceptionGroup) else failure
            await _let_go(entering, first)
            if first is not failure:
                raise first from None
            raise

    async def again(self, opened: Opened) -> Opened:
        """Look at the store once more: the turn that was in the way has ended meanwhile.

        Raises:
            Problem: what the session's stage could not do.
        """
        snapshot, holding = await self._hold(opened.principal)
        try:
            return self._opened(opened.principal, snapshot, holding, opened.detection)
        except BaseException:
            await holding.release()
            raise

    async def _enter(
        self, principal: Principal | None, said_yes: asyncio.Event
    ) -> tuple[Principal, tuple[Snapshot, Holding] | Problem]:
        """Authenticate, then get the session.

        Only authentication may end the opening early, so that nobody unknown learns anything
        from how the other stages fared.
        """
        if principal is None:
            async with Stage("authenticate", self.limits.authenticate, self.deadline, self.timings):
                principal = await self.authenticator.authenticate(self.credential)
        said_yes.set()
        return principal, await _held(self._hold(principal))

    @property
    def _stored(self) -> bool:
        """Whether the store has to be asked."""
        request = self.request
        asked = not request.opens or bool(request.idempotency_key) or request.background
        return asked or self.store_in_doubt

    async def _hold(self, principal: Principal) -> tuple[Snapshot, Holding]:
        if not self._stored:
            return Snapshot(None), self._nothing(principal)
        # A turn under the same key may take as long as a turn may.
        keyed = self.request.idempotency_key is not None
        patience = self.limits.turn if keyed else self.sessions.busy_seconds
        limit = self.limits.session + patience
        async with Stage("session", limit, self.deadline, self.timings):
            return await hold_session(
                self.store,
                self._key(principal),
                self.request,
                fingerprint=self.fingerprint,
                settings=self.sessions,
                joinable=self.joinable,
                attempt_seconds=self.limits.session,
                deadline=self.deadline,
                pending=self.resumed or self._promise(principal),
            )

    def _promise(self, principal: Principal) -> Pending | None:
        if not (self.request.background and self.sessions.lease_seconds):
            return None
        now = time.time()
        return Pending(
            key=self._key(principal),
            request=msgspec.structs.replace(self.request, deadline=None),
            accepted_at=now,
            ends_at=now + self.sessions.background_seconds,
        )

    def _nothing(self, principal: Principal) -> Holding:
        return Holding.nothing(self.store, self._key(principal), self.request.id)

    def _key(self, principal: Principal) -> SessionKey:
        return SessionKey(principal.tenant, principal.subject, self.request.session)

    def _opened(
        self, principal: Principal, snapshot: Snapshot, holding: Holding, detection: Detection
    ) -> Opened:
        answered = snapshot.replay or snapshot.running
        if not self.request.opens and snapshot.session is None and answered is None:
            raise SessionNotFound
        return Opened(principal, self._key(principal), snapshot, detection, holding)

    async def _detect(self, gate: asyncio.Event) -> Detection:
        if not self.detector.may_wait:
            return self._detect_locally()
        async with Stage("intent", self.limits.intent, self.deadline, self.timings):
            return await self.detector.detect(self.request.text, gate=gate, deadline=self.deadline)

    def _detect_locally(self) -> Detection:
        clock = asyncio.get_running_loop().time
        began = clock()
        detection = self.detector.detect_locally(self.request.text)
        self.timings.record("intent", clock() - began)
        return detection


async def _let_go(
    entering: asyncio.Task[tuple[Principal, tuple[Snapshot, Holding] | Problem]] | None,
    failure: BaseException,
) -> None:
    """The opening failed, but the session may be held already."""
    if entering is None or entering.cancelled() or not entering.done() or entering.exception():
        return
    _, loaded = entering.result()
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
