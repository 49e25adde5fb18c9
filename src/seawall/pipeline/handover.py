"""A conversation that is with a person: what is said meanwhile.

Each message is a turn of the session, written as the journal of a turn is: under the session's
lease, and on the condition that the hand-over has not ended. So what was said before it ended is
in the session when the assistant continues, and nothing is added to it later.
"""

import asyncio
import hashlib
import time

from msgspec import Struct, structs

from seawall.errors import AlreadyDecided, Problem, SessionBusy, SessionConflict, TurnIsPaused
from seawall.events import TurnCompleted
from seawall.pipeline.context import Ports, StageTimings, TurnContext
from seawall.pipeline.decisions import waiting_person
from seawall.pipeline.journal import store_journal
from seawall.pipeline.leases import TurnLease, acquire_lease
from seawall.pipeline.notifications import message_notification
from seawall.pipeline.opening import Opened
from seawall.pipeline.replay import replay
from seawall.requests import fingerprint, new_turn_id
from seawall.storage.port import JournalWrite, Notification, Session, Wait
from seawall.turn import (
    AssistantMessage,
    Journal,
    Message,
    Principal,
    TurnRecord,
    TurnRequest,
    Usage,
)

__all__ = ["add_message", "answer_silently"]

_PERSON = "person"


async def answer_silently(ports: Ports, context: TurnContext, opened: Opened) -> None:
    """Store the user's message as a turn, without calling a model, and notify of it.

    Args:
        ports: The pipeline's.
        context: Of the turn.
        opened: The result of its opening stages; its lease says that a person has the conversation.

    Raises:
        TurnIsPaused: The hand-over has just ended; the paused turn comes first.
        Problem: It is not stored, or it is not known whether it is.
    """
    request, lease = context.request, opened.lease
    wait, session = lease.with_person, opened.snapshot.session
    assert wait is not None  # noqa: S101 - see above
    assert session is not None  # noqa: S101 - it has a paused turn
    conversation = _Conversation(ports, request, lease, wait, session)
    said: tuple[Message, ...] = (request.message,)
    if ports.person_notice:
        said += (AssistantMessage(ports.person_notice),)
    turn = conversation.turn(said)
    added = (
        (message_notification(turn, request.message.described, wait),)
        if ports.notifications is not None
        else ()
    )
    latest = min(context.deadline, asyncio.get_running_loop().time() + ports.limits.commit)
    try:
        await conversation.store(turn, latest, context.timings, added)
    except AlreadyDecided as error:
        raise TurnIsPaused(
            "The conversation has just been handed back; the assistant answers first.",
            field="session",
            retry_after=1.0,
        ) from error
    context.report.agent, context.report.outcome = turn.agent, _PERSON
    *events, completed = replay(turn, opened.key.session)
    assert isinstance(completed, TurnCompleted)  # noqa: S101 - so it was stored
    context.timings.since_start("total", asyncio.get_running_loop().time())
    timings = context.timings.as_dict()
    await context.emit(*events)
    await context.emit(structs.replace(completed, replayed=False, timings=timings))


async def add_message(
    ports: Ports, caller: Principal, session: str, turn: str, text: str, *, key: str | None = None
) -> TurnRecord:
    """Add a message of the person who has a conversation.

    Args:
        ports: The pipeline's.
        caller: The person.
        session: Id of the session.
        turn: Id of the turn that waits.
        text: The message, for the user.
        key: The person's name for this request: a retry with it gets the first answer.

    Returns:
        The message, as a turn of the session.

    Raises:
        TurnNotFound: No such turn waits for a person, or not for this caller.
        Forbidden: The caller does not have the role, or is the user.
        AlreadyDecided: The conversation was handed back, or it is too late; a message that was
            stored before is returned nevertheless, if it has a key.
        KeyReused: The key was used with another text.
        SessionBusy: Another turn of the session is in progress, and was not done in time.
        Problem: It is not stored, or it is not known whether it is.
    """
    wait = await waiting_person(ports, caller, session, turn)
    now = asyncio.get_running_loop().time()
    request = TurnRequest(
        id=new_turn_id(session),
        text=text,
        session=session,
        opens=False,
        idempotency_key=_key_of(caller, turn, key) if key is not None else None,
    )
    over = wait.decision is not None or time.time() >= wait.expires_at
    if over and key is None:
        raise _too_late()
    try:
        snapshot, lease = await acquire_lease(
            ports.store,
            wait.key,
            request,
            fingerprint=fingerprint(request) if key is not None else None,
            settings=structs.replace(ports.sessions, when_busy="refuse")
            if over
            else ports.sessions,
            joinable=lambda _: False,
            attempt_seconds=ports.limits.session,
            deadline=now + ports.limits.turn,
        )
    except (SessionBusy, TurnIsPaused) as error:
        if over or isinstance(error, TurnIsPaused):
            raise _too_late() from error
        raise
    if snapshot.replay is not None:
        return snapshot.replay.turn
    async with lease.keep_renewed():
        stored = snapshot.session
        if lease.with_person is None or lease.with_person.id != wait.id or stored is None:
            raise _too_late()
        conversation = _Conversation(ports, request, lease, wait, stored)
        record = conversation.turn((AssistantMessage(text, by=caller.subject),))
        latest = asyncio.get_running_loop().time() + ports.limits.commit
        await conversation.store(record, latest, StageTimings(now, ports.wheel))
    return record


class _Conversation(Struct, frozen=True):
    """A session that a person has, leased for one message."""

    ports: Ports
    request: TurnRequest
    lease: TurnLease
    wait: Wait
    session: Session

    def turn(self, said: tuple[Message, ...]) -> TurnRecord:
        """What was said, as a turn."""
        return TurnRecord(
            id=self.request.id,
            number=self.session.version + 1,
            created_at=time.time(),
            agent=self.wait.agent,
            intent=None,
            messages=said,
            usage=Usage(),
            first_agent=self.wait.agent,
            reason="sticky",
            attempt=self.lease.attempt,
            finish_reason=_PERSON,
            journal=Journal(revision=1, writer=self.lease.begin.turn, attempt=self.lease.attempt),
            during=self.wait.id,
        )

    async def store(
        self,
        turn: TurnRecord,
        latest: float,
        timings: StageTimings,
        notifications: tuple[Notification, ...] = (),
    ) -> None:
        """Store what was said, and offer its notifications.

        Args:
            turn: What was said.
            latest: When it must be stored, on the event loop's clock.
            timings: Of the turn.
            notifications: Stored with it.

        Raises:
            AlreadyDecided: The hand-over has ended before.
            Problem: It is not stored, or it is not known whether it is.
        """
        ports, lease, request, wait = self.ports, self.lease, self.request, self.wait
        job = lease.begin.background_job
        keyed = request.idempotency_key is not None
        write = JournalWrite(
            key=wait.key,
            turn=turn,
            lease_owner=lease.begin.turn,
            until=None,
            agent=self.session.agent,
            state=None,
            expires_at=max(time.time() + ports.sessions.ttl_seconds, wait.expires_at),
            idempotency_key=request.idempotency_key,
            fingerprint=fingerprint(request) if keyed else None,
            opened_at=self.session.created_at,
            attempt=job.attempt if job is not None else 0,
            ends_job=job is not None,
            undecided=(wait.id,),
            notifications=notifications,
        )
        lease.stop_renewing()
        try:
            await store_journal(ports.store, write, "commit", latest, timings)
        except SessionConflict as conflict:
            if await _is_over(ports, wait):
                raise _too_late() from conflict
            raise
        lease.ended()
        if ports.notifications is not None:
            ports.notifications.offer(notifications)


def _too_late() -> AlreadyDecided:
    return AlreadyDecided("The conversation was handed back before, or its time is over.")


def _key_of(caller: Principal, turn: str, key: str) -> str:
    """A key that none of the session's owner can be equal to: theirs have no space."""
    digest = hashlib.sha256(f"{caller.subject}\0{turn}\0{key}".encode("utf-8", "replace"))
    return f"person {digest.hexdigest()}"


async def _is_over(ports: Ports, wait: Wait) -> bool:
    try:
        async with asyncio.timeout(ports.limits.session):
            found = await ports.store.find_wait(wait.key.tenant, wait.id)
    except (Problem, TimeoutError):
        return False
    return found is None or found.decision is not None
