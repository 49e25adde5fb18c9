"""Conversations whose id a client has chosen: the sessions of user interfaces.

Such a client names a conversation before its first turn, finds the turn that is in progress by the
name of the conversation, and decides about calls in the next request.
"""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from msgspec import UNSET, Struct, structs

from seawall.errors import AlreadyDecided, InvalidField, Problem, TurnNotFound
from seawall.events import Event
from seawall.hosts.http.exchange import Exchange
from seawall.hosts.http.sessions import authenticated_owner, call_limit
from seawall.pipeline.decisions import Verdict
from seawall.pipeline.replay import attempt_offset, paused
from seawall.requests import new_request, session_of
from seawall.storage.port import Begin, turn_of_lease_owner
from seawall.turn import (
    AnswerOptions,
    Principal,
    Resumption,
    SessionKey,
    TurnRecord,
    TurnRequest,
)

if TYPE_CHECKING:
    from seawall.orchestrator import Orchestrator

__all__ = [
    "Answer",
    "Conversation",
    "call_of",
    "continuation",
    "decide_calls",
    "decided_before",
    "has_key",
    "next_attempt",
    "open_conversation",
    "resumed_with",
    "still_waiting",
    "wait_id",
    "waiting_calls",
]

_MAX_WAIT_ID_CHARACTERS = 600


class Conversation(Struct, frozen=True):
    """A conversation of a caller, as its next request finds it.

    Attributes:
        owner: The caller.
        session: Id of the session.
        exists: Whether a turn of it is stored.
        running: Id of the turn in progress; empty for none.
        last: The newest turn that is stored.
    """

    owner: Principal
    session: str
    exists: bool
    running: str
    last: TurnRecord | None

    @property
    def active(self) -> str:
        """Id of the turn that is in progress, or waits; empty for none."""
        if self.running:
            return self.running
        waits = self.last is not None and self.last.status == "paused"
        return self.last.id if waits and self.last is not None else ""

    def request(
        self,
        text: str,
        *,
        agent: str | None,
        key: str | None,
        background: bool,
        options: AnswerOptions | None = None,
    ) -> TurnRequest:
        """The next turn of it.

        Args:
            text: The user's message.
            agent: The agent that answers; None to let routing decide.
            key: The idempotency key.
            background: Complete the turn even if the client disconnects.
            options: Of the answer.
        """
        request = new_request(
            text,
            session=self.session,
            agent=agent,
            idempotency_key=key,
            background=background,
            options=options,
            named=True,
        )
        return request if self.exists else structs.replace(request, opens=True)


class Answer(Struct, frozen=True):
    """What a client has decided about a call.

    Attributes:
        wait: As `wait_id` has named it.
        verdict: The decision.
        field: Path in the body.
    """

    wait: str
    verdict: Verdict
    field: str


async def open_conversation(
    orchestrator: "Orchestrator", exchange: Exchange, session: str
) -> Conversation:
    """Authenticate the caller, and read the conversation.

    Raises:
        Unauthenticated: The credential is missing or invalid.
        DeadlineExceeded: The store did not answer in time.
    """
    owner = await authenticated_owner(orchestrator, exchange)
    key = SessionKey(owner.tenant, owner.subject, session)
    async with call_limit(orchestrator):
        found = await orchestrator.engine.store.begin(Begin(key=key, turn="", turns=1, until=None))
    lease = found.session_lease
    running = turn_of_lease_owner(lease.owner) if lease is not None else ""
    return Conversation(
        owner,
        session,
        found.session is not None,
        running if session_of(running) == session else "",
        found.turns[-1] if found.turns else None,
    )


async def has_key(orchestrator: "Orchestrator", conversation: Conversation, key: str) -> bool:
    """Whether a turn that is stored, or in progress, has this idempotency key of the caller.

    Args:
        orchestrator: Has the store.
        conversation: Of the caller.
        key: The key.
    """
    owner = conversation.owner
    session = SessionKey(owner.tenant, owner.subject, conversation.session)
    read = Begin(key=session, turn="", turns=1, until=None, idempotency_key=key)
    async with call_limit(orchestrator):
        found = await orchestrator.engine.store.begin(read)
    return found.replay is not None or found.key_lease is not None


def wait_id(turn: str, call: str) -> str:
    """The name of a call that waits, among all turns of a caller."""
    return f"{turn}/{call}"


def call_of(wait: str, session: str, field: str) -> tuple[str, str]:
    """Turn and call of a name that `wait_id` has made.

    Args:
        wait: As sent.
        session: The session of the turn.
        field: Its path in the body.

    Raises:
        InvalidField: It is not such a name, or that of a call of another session.
    """
    turn, _, call = wait.partition("/")
    if len(wait) > _MAX_WAIT_ID_CHARACTERS or not call or session_of(turn) != session:
        raise InvalidField("No call of this conversation has this id.", field=field)
    return turn, call


async def decide_calls(
    orchestrator: "Orchestrator", conversation: Conversation, answers: Sequence[Answer]
) -> tuple[str, int]:
    """Decide about calls that a turn waits for; the turn continues.

    Those that were decided before do not matter if there is another.

    Args:
        orchestrator: Whose turn it is.
        conversation: Of the caller who decides.
        answers: At least one; all of one turn.

    Returns:
        The turn's id, and the position behind which its further events are.

    Raises:
        TurnNotFound: No such call waits, or not for this caller.
        Problem: See `Pipeline.decide`.
    """
    calls = [call_of(each.wait, conversation.session, each.field) for each in answers]
    turn, last = calls[0][0], conversation.last
    for (other, _), answer in zip(calls, answers, strict=True):
        if other != turn:
            raise InvalidField("This is a call of another turn.", field=answer.field)
    if last is None or last.id != turn:
        raise TurnNotFound(field=answers[0].field)
    failure: Problem | None = None
    decided = 0
    for (_, call), answer in zip(calls, answers, strict=True):
        try:
            await orchestrator.engine.pipeline.decide(
                conversation.owner, turn, call, answer.verdict
            )
        except TurnNotFound as problem:
            failure = failure or TurnNotFound(problem.detail, field=answer.field)
        except Problem as problem:
            failure = failure or problem
        else:
            decided += 1
    if failure is not None and not (decided and isinstance(failure, AlreadyDecided | TurnNotFound)):
        raise failure
    return turn, attempt_offset(next_attempt(last))


def decided_before(conversation: Conversation, answers: Sequence[Answer]) -> Resumption | None:
    """Where the turn continued after the caller had decided the same.

    Args:
        conversation: Of the caller.
        answers: All of one turn.

    Returns:
        None if it has not, if another decision was made, or if it is not the newest turn.
    """
    last = conversation.last
    if last is None or last.journal is UNSET:
        return None
    effects = {each.call: each for each in last.journal.effects}
    calls = set()
    for each in answers:
        turn, _, call = each.wait.partition("/")
        effect = effects.get(call) if turn == last.id else None
        request = effect.request if effect is not None else None
        made = request.decision if request is not None else None
        same = (each.verdict.decision, each.verdict.note, conversation.owner.subject)
        if made is None or (made.verdict, made.note, made.by) != same:
            return None
        calls.add(call)
    return resumed_with(last, calls)


def resumed_with(turn: TurnRecord, calls: Collection[str]) -> Resumption | None:
    """The newest resumption after a pause for one of these calls; None for none.

    Args:
        turn: The turn.
        calls: Their ids in it.
    """
    resumptions = turn.journal.resumptions if turn.journal is not UNSET else ()
    return next((each for each in reversed(resumptions) if set(calls) & set(each.waited)), None)


def continuation(conversation: Conversation, turn: str, call: str, field: str) -> int:
    """The position behind which the events after a pause are.

    Args:
        conversation: Of the caller.
        turn: Id of the turn that paused.
        call: Id of a call for which it paused.
        field: Path of its name in the body, for the error.

    Raises:
        TurnNotFound: It is not the newest turn of the conversation.
    """
    last = conversation.last
    if last is None or last.id != turn:
        raise TurnNotFound(field=field)
    resumed = resumed_with(last, {call})
    return attempt_offset(resumed.attempt if resumed is not None else next_attempt(last))


def still_waiting(conversation: Conversation, decided: Collection[str]) -> list[Event]:
    """The events of a pause that lasts, of the calls that are not decided.

    Args:
        conversation: As it was before the decisions.
        decided: Ids of calls.
    """
    last = conversation.last
    if last is None or last.status != "paused" or last.journal is UNSET:
        return []
    left = tuple(each for each in waiting_calls(last) if each not in decided)
    return list(paused(last, conversation.session, left)) if left else []


def waiting_calls(turn: TurnRecord) -> tuple[str, ...]:
    """Ids of the calls for which a turn has paused, whether they are decided or not.

    Args:
        turn: The turn.
    """
    effects = turn.journal.effects if turn.journal is not UNSET else ()
    return tuple(each.call for each in effects if each.status == "waiting")


def next_attempt(turn: TurnRecord) -> int:
    """The number of the next attempt at a turn."""
    resumptions = turn.journal.resumptions if turn.journal is not UNSET else ()
    return (resumptions[-1].attempt if resumptions else turn.attempt) + 1
