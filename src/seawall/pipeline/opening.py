"""The opening of a turn: authenticate, load the session, detect the intent, at the same time.

Authentication gates every effect. While it is still waiting for an identity provider, the
session is read by the identity that the credential claims, and the text is classified locally;
both are thrown away if authentication says no. What costs money, the model step of the intent
cascade, waits for the yes. Where authentication needs no waiting, it is simply first.
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

__all__ = ["Opened", "open_turn"]

T = TypeVar("T")


class Opened(Struct, frozen=True):
    """What the three stages found out."""

    principal: Principal
    key: SessionKey
    snapshot: Snapshot
    detection: Detection


async def open_turn(
    request: TurnRequest,
    credential: Credential,
    *,
    session: str,
    authenticator: Authenticator,
    store: SessionStore,
    detector: IntentDetector,
    history_turns: int,
    limits: StageLimits,
    deadline: float,
    timings: StageTimings,
) -> Opened:
    """Run the three stages.

    session: the id to load, or the one that a new session will get.

    Raises:
        Unauthenticated: before anything else could show.
        SessionNotFound: the session asked for is not this principal's.
        Problem: whatever else a stage could not do.
    """
    said_yes = asyncio.Event()

    async def authenticate() -> Principal:
        async with Stage("authenticate", limits.authenticate, deadline, timings):
            principal = await authenticator.authenticate(credential)
        said_yes.set()
        return principal

    async def read(principal: Principal) -> Snapshot:
        async with Stage("session", limits.session, deadline, timings):
            return await store.load(
                SessionKey(principal.tenant, principal.subject, session),
                turns=history_turns,
                idempotency_key=request.idempotency_key,
            )

    async def load() -> Snapshot:
        if request.session is None and request.idempotency_key is None:
            return Snapshot(None)
        assumed = None if said_yes.is_set() else authenticator.claimed(credential)
        early = await read(assumed) if assumed is not None else None
        principal = await authenticated
        return early if early is not None and principal == assumed else await read(principal)

    async def detect() -> Detection:
        async with Stage("intent", limits.intent, deadline, timings):
            return await detector.detect(request.text, gate=said_yes, deadline=deadline)

    try:
        async with asyncio.TaskGroup() as group:
            authenticated = group.create_task(authenticate())
            loaded = group.create_task(_held(load()))
            detected = group.create_task(_held(detect()))
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    principal = authenticated.result()
    snapshot, detection = _released(loaded.result()), _released(detected.result())
    if request.session is not None and snapshot.session is None:
        raise SessionNotFound
    key = SessionKey(principal.tenant, principal.subject, session)
    return Opened(principal, key, snapshot, detection)


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
