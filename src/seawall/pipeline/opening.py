"""The opening of a turn: authenticate, load the session, detect the intent, at the same time.

Authentication gates every effect. Where it needs no waiting, it is simply first. While it waits
for an identity provider, the session is read by the identity that the credential claims, and
the text is classified locally; both are thrown away if authentication says no. What costs money,
the model step of the intent cascade, waits for the yes.
"""

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

from msgspec import Struct

from seawall.errors import Problem, SessionNotFound
from seawall.identity.port import Authenticator, Credential
from seawall.intents.cascade import IntentDetector
from seawall.intents.definition import Detection
from seawall.pipeline.stages import Stage, StageLimits, StageTimings
from seawall.sessions.port import SessionStore, Snapshot
from seawall.turn import Principal, SessionKey, TurnRequest

__all__ = ["Opened", "Opening"]

T = TypeVar("T")


class Opened(Struct, frozen=True):
    """What the three stages found out."""

    principal: Principal
    key: SessionKey
    snapshot: Snapshot
    detection: Detection


class Opening(Struct, frozen=True, kw_only=True):
    """The three stages of one turn.

    session: the id to load, or the one that a new session will get. deadline: of the turn, in
    seconds on the event loop's clock.
    """

    request: TurnRequest
    credential: Credential
    session: str
    authenticator: Authenticator
    store: SessionStore
    detector: IntentDetector
    history_turns: int
    limits: StageLimits
    deadline: float
    timings: StageTimings

    async def run(self) -> Opened:
        """Run the stages.

        Raises:
            Unauthenticated: before anything else could show.
            SessionNotFound: the session asked for is not this principal's.
            Problem: whatever else a stage could not do.
        """
        clock = asyncio.get_running_loop().time
        began = clock()
        principal = self.authenticator.known(self.credential)
        if principal is None:
            principal, snapshot, detection = await self._wait_for_identity()
        else:
            self.timings.record("authenticate", clock() - began)
            snapshot, detection = await self._of(principal)
        if self.request.session is not None and snapshot.session is None:
            raise SessionNotFound
        key = SessionKey(principal.tenant, principal.subject, self.session)
        return Opened(principal, key, snapshot, detection)

    async def _of(self, principal: Principal) -> tuple[Snapshot, Detection]:
        """Session and intent of one who is known. Without a wait there is no task either."""
        if not self._stored and not self.detector.may_wait:
            return Snapshot(None), self._detect_locally()
        try:
            async with asyncio.TaskGroup() as group:
                loading = group.create_task(_held(self._load(principal)))
                detecting = group.create_task(_held(self._detect(_passed())))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return _released(loading.result()), _released(detecting.result())

    async def _wait_for_identity(self) -> tuple[Principal, Snapshot, Detection]:
        said_yes = asyncio.Event()

        async def authenticate() -> Principal:
            async with Stage("authenticate", self.limits.authenticate, self.deadline, self.timings):
                principal = await self.authenticator.authenticate(self.credential)
            said_yes.set()
            return principal

        async def load() -> Snapshot:
            assumed = self.authenticator.claimed(self.credential) if self._stored else None
            early = await self._load(assumed) if assumed is not None else None
            principal = await authenticated
            if early is not None and principal == assumed:
                return early
            return await self._load(principal)

        try:
            async with asyncio.TaskGroup() as group:
                authenticated = group.create_task(authenticate())
                loading = group.create_task(_held(load()))
                detecting = group.create_task(_held(self._detect(said_yes)))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return (
            authenticated.result(),
            _released(loading.result()),
            _released(detecting.result()),
        )

    @property
    def _stored(self) -> bool:
        """Whether there may be anything to load."""
        return self.request.session is not None or self.request.idempotency_key is not None

    async def _load(self, principal: Principal) -> Snapshot:
        if not self._stored:
            return Snapshot(None)
        async with Stage("session", self.limits.session, self.deadline, self.timings):
            return await self.store.load(
                SessionKey(principal.tenant, principal.subject, self.session),
                turns=self.history_turns,
                idempotency_key=self.request.idempotency_key,
            )

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


def _passed() -> asyncio.Event:
    gate = asyncio.Event()
    gate.set()
    return gate


async def _held(stage: Coroutine[None, None, T]) -> T | Problem:
    """The stage's failure as a value.

    Only authentication may end the opening early, so that nobody unknown learns anything from
    how the other stages fared.
    """
    try:
        return await stage
    except Problem as problem:
        return problem


def _released(outcome: T | Problem) -> T:
    if isinstance(outcome, Problem):
        raise outcome
    return outcome
